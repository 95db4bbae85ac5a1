"""Work that outlives a request: a leased job table, the worker that runs it, the hourly training trigger."""

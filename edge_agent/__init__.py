"""The daemon on the box beside the line: inspect, decide, select, spool, upload, update."""

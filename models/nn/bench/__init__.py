"""How fast a base is on this machine, beside other runtimes and quantizers in the same run. See `run`."""

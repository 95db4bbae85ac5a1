"""The operator's commands about releases: a client of the cloud's HTTP API with stable output and exit codes."""

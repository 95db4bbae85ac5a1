"""Tables, sessions and migrations. SQLite (WAL, synchronous FULL) or PostgreSQL 15+, by URL."""

"""The signing half's pieces: role metadata, the repository's files, approval of adapters. A box never imports it."""

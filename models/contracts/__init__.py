"""Formats shared by programs that meet only in bytes: ids, topics, messages, manifests, TUF layout.

Rules: standard library, pydantic and a CRC; no I/O, no clock, no randomness of its own, no numpy.
Every format is for ever: a change that an old reader cannot take is a new version beside the old one,
and every released version keeps a golden file under ``tests/models/contracts/golden``.
"""

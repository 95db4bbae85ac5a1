"""Tests of `cloud.lines`."""

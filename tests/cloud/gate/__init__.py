"""Tests of `cloud.gate`."""

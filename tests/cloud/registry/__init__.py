"""Tests of `cloud.registry`."""

"""Tests of `cloud.jobs`."""

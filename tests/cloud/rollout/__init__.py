"""Tests of `cloud.rollout`."""

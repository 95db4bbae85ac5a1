"""Rollouts: a release goes to a canary first, then to all; one that fails is stopped and the last good one returns."""

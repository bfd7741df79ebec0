"""Tests of what tests, soak and bench share."""

"""Tests of `exporter/state`."""

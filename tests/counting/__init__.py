"""Tests of `exporter/counting`."""

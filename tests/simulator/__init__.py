"""Tests of `exporter/simulator`."""

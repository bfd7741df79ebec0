"""Tests of `exporter/hms`."""

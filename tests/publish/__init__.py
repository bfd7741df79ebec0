"""Tests of `exporter/publish`."""

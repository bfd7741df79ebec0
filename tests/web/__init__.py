"""Tests of `exporter/web`."""

"""Tests of `exporter/polling`."""

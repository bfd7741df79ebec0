"""Tests of `exporter/config`."""

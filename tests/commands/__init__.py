"""Tests of `exporter/commands`."""

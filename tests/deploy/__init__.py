"""Tests of the files that ship and run the exporter."""

"""Tests of the rules and alerts."""

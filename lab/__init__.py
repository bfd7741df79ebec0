"""What tests, soak and bench share: an exporter against a simulated 100ms, and what its counters must say."""

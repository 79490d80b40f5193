"""Models that the benches, the demo and the tests parallelize; written from the papers."""

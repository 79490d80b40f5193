"""Other sequence parallelisms on the same primitives, for comparison and for single-axis models."""

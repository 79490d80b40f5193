"""Test programs and the benchmarks that run on them."""

"""Benchmarks of attention: the kernel alone, and fused with the switches around it."""

"""Generators: OpenMP C from a schedule, and the NumPy interpreter that is the oracle."""

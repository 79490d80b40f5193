"""Choosing a schedule: candidates, their order, and measuring the best-looking ones."""

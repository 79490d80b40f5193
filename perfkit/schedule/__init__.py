"""Schedules as scripts of transforms that prove their own legality."""

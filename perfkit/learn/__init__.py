"""Learning the cost model: random programs, measured schedules, training."""

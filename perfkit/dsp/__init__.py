"""Dynamic sequence parallelism: placements, switches of the sharded axis, plans, projections."""

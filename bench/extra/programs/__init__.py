"""One module per program; see `bench.polybench.registry` for what each must define."""

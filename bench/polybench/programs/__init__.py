"""One module per PolyBench algorithm; see `bench.polybench.registry` for what each must define."""

"""Dynamic sequence parallelism against Ulysses, Megatron-SP and ring attention."""

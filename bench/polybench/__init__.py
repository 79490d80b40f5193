"""The test programs: the 30 PolyBench 4.2.1 algorithms, written anew in Python and in C."""

"""`python -m benchmarks.structures`: the structures at large sizes, and in pairs."""

"""Measures Pacesetter against its alternatives: `python -m benchmarks`."""

"""Measures Pacesetter against what one would use instead: `python -m benchmarks`."""

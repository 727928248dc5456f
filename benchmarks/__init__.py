"""Benchmarks: what things cost, measured; see __main__."""

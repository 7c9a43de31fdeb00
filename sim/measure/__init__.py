"""Measure: what a trace is worth, with its uncertainty and beside its baselines."""

"""Measure: the quality and cost of a trace, with standard errors and beside baselines.

Nothing here plays a policy. What is computed here uses labels that a policy must never see.
"""

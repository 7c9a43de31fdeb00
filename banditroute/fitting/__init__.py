"""Fitting: priors from labelled prompts, pairs and logs, made before a policy serves.

Nothing here serves, and torch is imported only where a fit needs it.
"""

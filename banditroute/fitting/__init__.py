"""Fitting: priors made ahead of time from labelled prompts, pairs and logs. Nothing here serves."""

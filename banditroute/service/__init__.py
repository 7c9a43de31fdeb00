"""What the daemon does, in one event loop: decide, take feedback, keep pools and budgets.

Nothing here may know HTTP statuses or where the learner runs.
"""

"""Features: the numbers that a policy reads of a prompt.

Nothing here reads the log, a setting or a clock: logged decisions are replayed from these numbers.
"""

"""Learning: the fold over the log, the learner that follows the log, and the thread that runs it.

State is a function of the events alone. Nothing here writes events, reads a clock to learn from, or
is waited for by a request.
"""

"""Learn: the fold over the log, the learner that tails it, and the thread it runs in."""

"""Features: the numbers that a policy reads of a prompt. Nothing here reads the log or a clock."""

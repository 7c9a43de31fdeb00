"""Features: what a policy sees of a prompt. Nothing here reads the log, the clock or a setting."""

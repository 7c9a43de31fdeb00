"""What the daemon does, in one event loop: decide, take feedback, keep pools and budgets."""

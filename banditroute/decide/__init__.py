"""Decide: requests in, laws and draws out. Pure: no log, no money, no clock of its own."""

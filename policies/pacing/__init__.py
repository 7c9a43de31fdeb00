"""Pacing: the price of money, and the modes that set it."""

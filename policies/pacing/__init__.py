"""Pacing: the price of money of a budget, and the modes that set it.

Nothing here may know a clock, a ledger or a label.
"""

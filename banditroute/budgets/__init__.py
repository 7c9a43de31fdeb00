"""Budgets: leases of the ledger, reservations from them, and the price of money.

Nothing here may spend money that SQL has not leased to this process.
"""

"""Budgets: leases of the ledger, reservations from them, and the price of money."""

"""The database: tables, migrations, the log of decisions and events, and the ledger of budgets.

SQL is the only source of truth, and one writer per process writes it. Nothing here knows HTTP, and
nothing here may change the meaning of a stored row: state is rebuilt from the log.
"""

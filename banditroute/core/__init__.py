"""Values that every floor above shares: pools, budgets, policy identities, errors, the clock."""

"""Values that all other folders share: pools, budgets, policy identities, faults, the clock.

It must never import another folder of the daemon.
"""

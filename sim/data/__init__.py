"""Data: what was logged elsewhere, as one `Dataset`, and the prices of its models.

Nothing here may know a policy or play anything.
"""

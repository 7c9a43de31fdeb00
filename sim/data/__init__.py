"""Data: what was logged elsewhere, as one dataset with prices. No policy is known here."""

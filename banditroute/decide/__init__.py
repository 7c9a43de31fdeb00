"""Decide: requests in, laws and draws out.

Pure: it reads no log and no clock. What a request may reserve comes from a `Purse` that the caller
passes in; the rows of reservations are made in `store`.
"""

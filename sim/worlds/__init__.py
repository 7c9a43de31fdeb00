"""Worlds: a dataset as a stream of requests, and the scenarios that change it.

`events` imports `world`, and `scenario` imports both. Nothing here plays a policy.
"""

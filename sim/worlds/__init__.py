"""Worlds: a dataset as a stream of requests, and the scenarios that change it."""

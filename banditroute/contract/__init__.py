"""The HTTP contract: the fields of requests and answers, and how a body is read.

It must never know a handler or a table.
"""

"""Play: candidates answer the requests of a world, one after another.

What they do is never judged here, and a player never sees the outcome of a model that it did not
choose.
"""

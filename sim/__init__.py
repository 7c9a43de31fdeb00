"""The simulator: it plays policies over logged data with the daemon's own router, and judges them.

The daemon must never import it.
"""

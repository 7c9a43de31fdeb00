"""The HTTP contract: what requests hold, and bodies as bytes. It knows no handler and no table."""

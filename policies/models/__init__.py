"""Models beside every policy: cost, latency, and the detector of drift.

Each is a fold over the log, like a policy, and must never read or change a policy's state.
"""

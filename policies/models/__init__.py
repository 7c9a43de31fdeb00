"""Models that policies share: cost and latency, and the detector of drift."""

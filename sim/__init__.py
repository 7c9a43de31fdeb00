"""Offline: logged data in, the daemon's own router driven over it, a judged report out."""

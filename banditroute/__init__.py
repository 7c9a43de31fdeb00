"""banditroute: the daemon that picks the model for each prompt and learns from its answer."""

__version__ = "0.2.0"

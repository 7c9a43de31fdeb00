"""The command line ``banditroute``, one file for each group of commands.

A module must never import anything heavy at its top, so that ``--help`` is fast; commands import
what they need when they run.
"""

from banditroute.cli.main import app, main

__all__ = ["app", "main"]

"""The command line ``banditroute``, a file for each group of commands.

Heavy imports wait inside the commands, so that ``--help`` is quick.
"""

from banditroute.cli.main import app, main

__all__ = ["app", "main"]

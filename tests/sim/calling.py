"""The simulator's command line, called in this process."""

from __future__ import annotations

import sys
from pathlib import Path

from sim.cli import main


def call(*words: str | Path) -> int:
    """Return the status of ``python -m sim`` with these words."""
    saved = sys.argv
    sys.argv = ["sim", *(str(word) for word in words)]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = saved
    return 0

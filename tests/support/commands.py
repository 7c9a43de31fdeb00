"""The two command lines, called in this process: ``banditroute`` and ``python -m sim``."""

from __future__ import annotations

import sys
from pathlib import Path

from typer.testing import CliRunner, Result

from banditroute.cli import app
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


def banditroute(*words: str | Path) -> Result:
    """Run ``banditroute`` with these words; it may end, but not fail."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result

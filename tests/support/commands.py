"""The two command lines, ``banditroute`` and ``python -m sim``, in this process or in another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


@contextmanager
def started(*words: str | Path, ignored: bool = False, **env: str) -> Iterator[subprocess.Popen]:
    """Start ``python -m sim`` in a process group of its own, as from a terminal.

    By default the interrupt is not ignored in it, even where it is in this process, as in the
    background job of a shell.
    """
    command = [sys.executable, "-m", "sim", *map(str, words)]
    pipe = subprocess.PIPE
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    try:
        process = subprocess.Popen(
            command, stdout=pipe, stderr=pipe, text=True, env=os.environ | env, process_group=0
        )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def banditroute(*words: str | Path) -> Result:
    """Run ``banditroute`` with these words; it may end, but not fail."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result

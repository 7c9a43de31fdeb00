"""Ctrl-C ends a command with status 130 and no traceback, whatever the command does just then.

Where interrupts are ignored from the start, as in the background job of a shell, they stay ignored.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

RAISE_AGAIN_S = 0.5


@contextmanager
def exit_on_interrupt() -> Iterator[None]:
    """Raise SystemExit with status 130 for an interrupt of the body.

    Meant for the whole of a process: after the body, interrupts are ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _raise)
        signal.signal(signal.SIGALRM, _raise_again)
        sys.unraisablehook = _report
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        # The command is over: an interrupt of Python's own clean-up would print a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        # CPython notes a KeyboardInterrupt that leaves an exec of text, and dies of SIGINT in the
        # end, even if the exception was handled since. Interrupts of imports are often such: scipy
        # and pandas import much within an exec. The next exec clears the note.
        exec("")


@contextmanager
def left_to_asyncio() -> Iterator[None]:
    """Use Python's own handler in the body.

    asyncio cancels its tasks at an interrupt, but puts its handler only in place of that one.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is _raise:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _raise(number: int, frame: FrameType | None) -> None:
    # Python drops an exception in finalizers and in the weakref callbacks of an import, pyarrow in
    # its import of pandas. So it is raised until it is handled or the command is over.
    signal.setitimer(signal.ITIMER_REAL, RAISE_AGAIN_S, RAISE_AGAIN_S)
    raise KeyboardInterrupt


def _raise_again(number: int, frame: FrameType | None) -> None:
    handled = sys.exc_info()[1]
    while handled is not None and not isinstance(handled, KeyboardInterrupt):
        handled = handled.__context__
    if handled is None:
        raise KeyboardInterrupt


def _report(unraisable: sys.UnraisableHookArgs) -> None:
    if unraisable.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(unraisable)

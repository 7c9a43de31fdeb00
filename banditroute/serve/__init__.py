"""Run the daemon: in one process, or on Ray Serve.

This is the one folder that knows where the parts run. ``banditroute.serve:build_app`` and
``banditroute.serve:app`` are what ``serve run``, ``serve build`` and ``serve deploy`` take.
"""

from __future__ import annotations

from typing import Any

from banditroute.serve.ray import build_app

__all__ = ["build_app"]


def __getattr__(name: str) -> Any:
    """Build ``app``, the application with default settings, only for who asks for it."""
    if name == "app":
        return build_app({})
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

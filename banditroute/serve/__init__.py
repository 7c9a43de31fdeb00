"""Run the daemon: in one process, or on Ray Serve.

No other folder knows where the parts run. Ray's commands ``serve run``, ``serve build`` and
``serve deploy`` take ``banditroute.serve:build_app`` and ``banditroute.serve:app``.
"""

from __future__ import annotations

from typing import Any

from banditroute.serve.ray import build_app

__all__ = ["build_app"]


def __getattr__(name: str) -> Any:
    """Return ``app``, the application with default settings; it is built when it is first used."""
    if name == "app":
        return build_app({})
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

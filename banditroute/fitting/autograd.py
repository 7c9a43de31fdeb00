"""What all fitting beforehand shares: torch, imported when it is needed and never at serving time,
and the limits of options.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def require_torch() -> Any:
    """Return torch, or raise an ImportError that names the extra to install."""
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise ImportError(
            "fitting a prior needs torch: pip install 'banditroute[embeddings]'"
        ) from error


@contextmanager
def one_thread() -> Iterator[Any]:
    """Yield torch, held to one thread: sums of several differ in their last bits."""
    torch = require_torch()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield torch
    finally:
        torch.set_num_threads(threads)


def check_limits(options: object, limits: Mapping[str, tuple[float, float]]) -> None:
    """Raise a ValueError for an attribute of `options` that is not within its (low, high)."""
    for name, (low, high) in limits.items():
        value = getattr(options, name)
        if not low <= value <= high:
            raise ValueError(f"{name}: {low:g} to {high:g}, not {value:g}")

"""Import torch, for the fits that need derivatives. Serving never imports it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
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
    """Yield torch on one thread: with several, the last bits of a sum vary between runs."""
    torch = require_torch()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield torch
    finally:
        torch.set_num_threads(threads)

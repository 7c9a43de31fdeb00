"""A fitted prior: what `warm-start` and `prior fit` write, and what a policy starts from.

A file of plain arrays, never a pickle. Its bytes go into the log with the policy that starts from
it, so that the log alone is enough to fold; the file may be gone by then.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.base import Arrays

KINDS = ("sums", "pilot")


@dataclass(frozen=True, slots=True)
class Prior:
    """What was fitted, on which features.

    Attributes
    ----------
    kind : ``sums`` (per arm, see `policies.base.sums_of`) or ``pilot`` (see `policies.pilot`).
    embedder : identity of the embedder whose features it was fitted on.
    arrays : named plain arrays; ``arms`` holds the models' names.
    """

    kind: str
    embedder: str
    arrays: Arrays

    def dump(self) -> bytes:
        """Return the bytes of an .npz file, the same ones for the same content."""
        own = {"kind": np.array(self.kind), "embedder": np.array(self.embedder)}
        return pack(own | self.arrays)

    def text(self) -> str:
        """Return `dump` as text, for the log."""
        return base64.b64encode(self.dump()).decode("ascii")

    @classmethod
    def load(cls, dumped: bytes) -> Prior:
        """Return what `dump` was given; anything else is a ValueError."""
        try:
            arrays = unpack(dumped)
            kind, embedder = str(arrays.pop("kind")), str(arrays.pop("embedder"))
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError("prior: not a file of a fitted prior") from error
        if kind not in KINDS or "arms" not in arrays:
            raise ValueError(f"prior: of unknown kind {kind!r}; valid: {', '.join(KINDS)}")
        return cls(kind, embedder, arrays)

    @classmethod
    def read(cls, path: Path) -> Prior:
        """Read a file; one that cannot be read is a ValueError."""
        try:
            return cls.load(path.read_bytes())
        except OSError as error:
            raise ValueError(f"prior: {path}: {error.strerror}") from error

    def write(self, path: Path) -> None:
        """Write a file."""
        path.write_bytes(self.dump())


@lru_cache(maxsize=16)
def parsed(text: str) -> Prior:
    """Return the prior that `Prior.text` gave as text."""
    try:
        return Prior.load(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise ValueError("prior: not base64") from error


def digest(text: str) -> str:
    """Return a short digest of a prior's text, "" for none."""
    return hashlib.sha256(text.encode()).hexdigest()[:12] if text else ""


def pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return named arrays as the bytes of an .npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack(dumped: bytes) -> Arrays:
    """Return the arrays of `pack`."""
    with np.load(io.BytesIO(dumped), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}

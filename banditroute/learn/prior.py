"""Fitted priors: `warm-start`, `pretrain` and `prior fit` write them, and policies start from them.

A prior is a file of plain arrays, never a pickle. When a policy starts from a prior, the bytes of
the file go into the log. So a fold reads only the log, and the file may be deleted.
"""

from __future__ import annotations

import base64
import binascii
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditroute.core.pool import PoolOptions
from banditroute.features.basis import COORDINATES, Basis
from banditroute.features.embedding import FEATURES, make_embedder
from banditroute.features.tasks import identity
from policies import make_policy
from policies.base import Arrays, Sums
from policies.params import checked_array

KINDS = ("sums", "pilot", "barp")
PREFIXES = ("", "cost_")
"""Prefixes of the arrays of quality, and of the optional arrays of the cost model."""


@dataclass(frozen=True, slots=True)
class Prior:
    """A fitted prior.

    Attributes
    ----------
    kind : str
        ``sums`` (per arm, see `policies.base.sums_of`), ``pilot`` (see `policies.pilot`) or
        ``barp`` (sums and a net, see `policies.barp`).
    embedder : str
        Identity of the embedder that made the features of the fit.
    arrays : dict of arrays
        Plain arrays by name. ``arms`` holds the names of the models. ``basis_mean`` and
        ``basis_matrix`` are the embedder's basis, if it was fitted on the same prompts.
    """

    kind: str
    embedder: str
    arrays: Arrays

    def dump(self) -> bytes:
        """Return the bytes of an .npz file; the same content gives the same bytes."""
        own = {"kind": np.array(self.kind), "embedder": np.array(self.embedder)}
        return pack(own | self.arrays)

    def text(self) -> str:
        """Return `dump` as text, for the log."""
        return base64.b64encode(self.dump()).decode("ascii")

    @classmethod
    def load(cls, dumped: bytes) -> Prior:
        """Return the prior that `dump` was called on.

        Parameters
        ----------
        dumped : bytes
            The bytes of a file.

        Raises
        ------
        ValueError
            For anything that is not a fitted prior.
        """
        try:
            arrays = unpack(dumped)
            kind, embedder = str(arrays.pop("kind")), str(arrays.pop("embedder"))
        except (ValueError, TypeError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError("prior: not a file of a fitted prior") from error
        if kind not in KINDS or arrays.get("arms", np.zeros(0)).dtype.kind != "U":
            raise ValueError(f"prior: of unknown kind {kind!r}; valid: {', '.join(KINDS)}")
        try:
            if kind != "pilot":
                _check_sums(arrays)
            if "basis_mean" in arrays:
                dim = arrays["basis_mean"].size
                checked_array(arrays, "basis_mean", (dim,))
                checked_array(arrays, "basis_matrix", (dim, COORDINATES))
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"prior: array missing or malformed: {error}") from error
        return cls(kind, embedder, arrays)

    @classmethod
    def read(cls, path: Path) -> Prior:
        """Read a file; raise ValueError if that is not possible."""
        try:
            return cls.load(path.read_bytes())
        except OSError as error:
            raise ValueError(f"prior: {path}: {error.strerror}") from error

    def write(self, path: Path) -> None:
        """Write a file."""
        path.write_bytes(self.dump())

    @property
    def basis(self) -> Basis | None:
        """The basis that the embedder must use; None: the embedder's default."""
        if "basis_mean" not in self.arrays:
            return None
        return Basis(self.arrays["basis_mean"], self.arrays["basis_matrix"])

    def check_embedder(self, identity: str) -> None:
        """Raise ValueError unless the prior was fitted on features of the embedder `identity`."""
        if identity != self.embedder:
            raise ValueError(
                f"prior: fitted on features of embedder {self.embedder}, not {identity}"
            )


def configured_prior(options: PoolOptions) -> Prior | None:
    """Return the prior that a pool starts from.

    Parameters
    ----------
    options : PoolOptions
        The options of the pool.

    Returns
    -------
    Prior or None
        None if the options name no file.

    Raises
    ------
    ValueError
        When the file cannot be read, or does not fit the policy, the features or the embedder. An
        embedder that loads a model is checked by its name only.
    """
    if options.prior is None:
        return None
    prior = Prior.read(Path(options.prior))
    name, dim = options.policy.name, FEATURES + len(options.tasks)
    policy = make_policy(name, dim=dim, params=options.policy.params)
    policy.adopt(prior.arrays)
    for sums in policy.prior_sums.values():
        if len(sums.moment) != dim:
            raise ValueError(f"prior: must have {dim} features, has {len(sums.moment)}")
    kind = options.embedder
    if kind in ("hashing", "precomputed"):
        embedder = make_embedder(kind, dim=options.embedding_dim, basis=prior.basis)
        prior.check_embedder(identity(embedder.identity, options.tasks))
    elif not prior.embedder.startswith(f"{kind.rpartition('/')[2]}-"):
        prior.check_embedder(kind)
    return prior


def arrays_of(sums: Mapping[str, Sums], costs: Mapping[str, Sums] | None = None) -> Arrays:
    """Return sums by arm as the arrays that `policies.base.sums_of` reads.

    Parameters
    ----------
    sums : mapping of Sums
        Sums of quality by arm.
    costs : mapping of Sums or None
        Sums of the cost model by arm; a missing arm gets zeros. None: no prior of costs.

    Returns
    -------
    dict of arrays
        See `policies.base.sums_of`.
    """
    arrays: Arrays = {"arms": np.array(list(sums), dtype=np.str_)}
    for prefix, by_arm in zip(PREFIXES, (sums, costs), strict=True):
        if by_arm is not None:
            rows = [by_arm.get(arm) or quality.scaled(0.0) for arm, quality in sums.items()]
            for name in Sums.__dataclass_fields__:
                arrays[prefix + name] = np.array([getattr(row, name) for row in rows])
    return arrays


def _check_sums(arrays: Mapping[str, NDArray[Any]]) -> None:
    arms, dim = len(arrays["arms"]), arrays["moment"].shape[-1]
    for prefix in PREFIXES:
        if prefix and f"{prefix}gram" not in arrays:
            continue
        grams = checked_array(arrays, f"{prefix}gram", (arms, dim, dim))
        checked_array(arrays, f"{prefix}moment", (arms, dim))
        checked_array(arrays, f"{prefix}square", (arms,))
        for arm, gram in zip(arrays["arms"], grams, strict=True):
            spectrum = np.linalg.eigvalsh(gram)
            if spectrum[0] < -1e-8 * max(spectrum[-1], 1.0):
                raise ValueError(f"prior: {prefix}gram of {arm}: not a sum of squares")
        if (checked_array(arrays, f"{prefix}count", (arms,)) < 0.0).any():
            raise ValueError(f"prior: {prefix}count: must be at least 0")
    if len(set(arrays["arms"].tolist())) < arms:
        raise ValueError("prior: arms: a model is named twice")


@lru_cache(maxsize=16)
def parse_prior(text: str) -> Prior:
    """Return the prior that `Prior.text` wrote as text; raise ValueError for any other text."""
    try:
        return Prior.load(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise ValueError("prior: not base64") from error


def pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return named arrays as the bytes of an .npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack(dumped: bytes) -> Arrays:
    """Return the arrays that `pack` was given."""
    with np.load(io.BytesIO(dumped), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}

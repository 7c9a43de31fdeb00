"""Maps from a text vector and raw surface counts to features, fitted without labels and shipped.

`fit.py` beside this file made the arrays from public prompts. They are part of a policy's identity:
a changed byte is a new embedder, so they must never change without a reason worth every running
policy's restart. Nothing here may unpickle: the files are plain arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from banditroute.features import text

COORDINATES = 32
HASHING_DIM = 2048
PROJECTION_SEED = 0x5EED0001
PROJECTION_SIGNS = 4


class Basis(NamedTuple):
    """Affine map from a unit-norm text vector v to coordinates, `(v - mean) @ matrix`.

    Attributes
    ----------
    mean : float32 [dim]
    matrix : float32 [dim, 32]
        Scaled by one number so that the mean square of a coordinate is 1 over the prompts that
        fitted it; coordinates are uncorrelated there, in falling order of variance.
    """

    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]


class Standard(NamedTuple):
    """Standardisation of the surface features, `(raw - mean) / scale`.

    Attributes
    ----------
    mean : float32 [14]
    scale : float32 [14]
        Standard deviation plus 0.3, so that a rare feature cannot explode.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]


def _arrays(file: str) -> dict[str, NDArray[np.generic]]:
    path = resources.files(__package__).joinpath(file)
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return dict(arrays)


def load_basis(name: str) -> Basis:
    """Read the shipped basis `name`, "hashing" or "minilm".

    A matrix of small integers comes with `step`, the value of one unit in each column.
    """
    arrays = _arrays(f"{name}.npz")
    matrix = arrays["matrix"].astype(np.float32)
    if "step" in arrays:
        matrix *= arrays["step"].astype(np.float32)
    return Basis(arrays["mean"].astype(np.float32), matrix)


def load_standard() -> Standard:
    """Read the shipped standardisation of the surface features."""
    arrays = _arrays("surface.npz")
    return Standard(arrays["mean"].astype(np.float32), arrays["scale"].astype(np.float32))


def _random_bits(seed: int, count: int) -> NDArray[np.uint32]:
    bits = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B9) + np.uint32(seed)
    for shift, multiplier in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits ^= bits >> np.uint32(shift)
        bits *= np.uint32(multiplier)
    return bits ^ (bits >> np.uint32(16))


def seeded_projection(dim: int) -> NDArray[np.float32]:
    """Orthonormal directions for vectors that no basis was fitted for.

    Parameters
    ----------
    dim : int
        Length of the vectors, at least 1.

    Returns
    -------
    float32 [dim, 32]
        Scaled so that the mean square of a coordinate is about 1 for vectors of unit norm. Up to
        32 numbers the vector is kept as it is and zeros follow.
    """
    if dim <= COORDINATES:
        return np.eye(dim, COORDINATES, dtype=np.float32) * np.float32(COORDINATES**0.5)
    signs = (_random_bits(PROJECTION_SEED, dim * COORDINATES) >> np.uint32(31)).reshape(dim, -1)
    orthonormal, triangle = np.linalg.qr(2.0 * signs - 1.0)
    # The sign of a QR column is the library's choice.
    orthonormal *= np.sign(np.diagonal(triangle))
    projection: NDArray[np.float32] = (orthonormal * dim**0.5).astype(np.float32)
    return projection


def hashing_projection(buckets: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The fixed sparse projection of n-gram buckets: each adds to four of 2,048 dimensions.

    Parameters
    ----------
    buckets : int

    Returns
    -------
    dimensions : int64 [buckets, 4]
    signs : float32 [buckets, 4]
        +-1/2, so that a bucket has unit norm unless two of its dimensions coincide.
    """
    bits = _random_bits(PROJECTION_SEED, buckets * PROJECTION_SIGNS).reshape(buckets, -1)
    dimensions = (bits % np.uint32(HASHING_DIM)).astype(np.int64)
    signs = np.where(bits >> np.uint32(31), 1.0, -1.0) / PROJECTION_SIGNS**0.5
    return dimensions, signs.astype(np.float32)


def hashing_vectors(prompts: Sequence[str]) -> NDArray[np.float32]:
    """The hashing embedder's text vectors before the basis.

    Parameters
    ----------
    prompts : sequence of n str

    Returns
    -------
    float32 [n, 2048]
        Scaled as `HashingEmbedder` says; 0 for a prompt without words.
    """
    dimensions, signs = hashing_projection(text.BUCKETS)
    out = np.zeros((len(prompts), HASHING_DIM), dtype=np.float32)
    row = 0
    for rows in text.chunks(text.encode(prompts)):
        ngrams, _ = text.analyse(rows)
        for begin, end in zip(ngrams.offsets, ngrams.offsets[1:], strict=False):
            buckets, counts = ngrams.buckets[begin:end], ngrams.counts[begin:end]
            weights = np.sqrt(counts)[:, None] * signs[buckets]
            out[row] = np.bincount(
                dimensions[buckets].ravel(), weights=weights.ravel(), minlength=HASHING_DIM
            )
            out[row] /= np.sqrt(max(counts.sum(), 1))
            row += 1
    return out

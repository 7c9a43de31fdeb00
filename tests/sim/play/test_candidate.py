"""Candidates as people write them: what is meant, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from banditroute.learn.prior import Prior
from sim.errors import InputError
from sim.play import libraries
from sim.play.candidate import KEYS, Candidate, check_labels, parse_candidate

MODELS = ("small", "large")


def test_a_name_and_its_parameters() -> None:
    candidate = parse_candidate("linucb:alpha=0.3, ridge=30")
    assert (candidate.label, candidate.name) == ("linucb:alpha=0.3, ridge=30", "linucb")
    assert candidate.params == {"alpha": 0.3, "ridge": 30}
    assert (candidate.prior, candidate.pacing, candidate.options.exploration_share) == (
        "",
        "history",
        0.0,
    )
    assert parse_candidate("thompson") == Candidate.of("thompson")
    assert parse_candidate("fixed:arm=large").params == {"arm": "large"}


def test_a_file_holds_the_keys_of_a_pool_that_belong_to_a_policy(tmp_path: Path) -> None:
    path = tmp_path / "linucb.yaml"
    path.write_text(
        "policy: {name: linucb, alpha: 0.5}\nexploration_share: 0.25\nexploration_cost_share: 1\n"
    )
    candidate = parse_candidate(str(path))
    assert candidate == Candidate.of(
        "linucb",
        {"alpha": 0.5},
        label=str(path),
        exploration_share=0.25,
        exploration_cost_share=1.0,
    )
    path.write_text("policy: pilot\n")
    assert parse_candidate(str(path)).name == "pilot"
    assert KEYS[0] == "policy" and "reset_on_drift" in KEYS


def test_a_prior_lies_beside_the_file_and_travels_as_text(tmp_path: Path) -> None:
    sums = {
        "arms": np.array(["small"]),
        "gram": np.eye(2)[None],
        "moment": np.array([[0.0, 0.7]]),
        "square": np.array([0.5]),
        "count": np.array([1.0]),
    }
    prior = Prior("sums", "mine", sums)
    (tmp_path / "p.npz").write_bytes(prior.dump())
    path = tmp_path / "warm.yaml"
    path.write_text("policy: linucb\nprior: p.npz\n")
    candidate = parse_candidate(str(path))
    assert (candidate.prior, candidate.options.prior) == (prior.text(), None)
    assert parse_candidate(f"linucb@{tmp_path / 'p.npz'}").prior == prior.text()
    candidate.check(models=MODELS, embedder="mine", dim=2)
    with pytest.raises(InputError, match="warm.yaml': prior: fitted on features of embedder"):
        candidate.check(models=MODELS, embedder="another", dim=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file or directory"),
        ("policy: [", "not YAML in line 1: "),
        ("policy: linucb\npolicy: pilot", "policy (line 2): given twice"),
        ("policy: {name: linucb,\n  alpha: 1, alpha: 2}", "policy.alpha (line 2): given twice"),
        ("- linucb", "a mapping of keys is expected"),
        ("policy: linucbb", "policy.name: unknown policy 'linucbb'; did you mean 'linucb'"),
        ("policy: {name: linucb, alfa: 1}", "policy.alfa: unknown parameter of linucb"),
        ("embedder: minilm", "embedder: not a key of a policy; valid: policy, prior"),
        ("exploration_share: 2", "exploration_share: Input should be less than 1"),
        ("preference: {quality: 0}", "preference: not a key of a policy; valid: policy, prior"),
        ("policy: linucb\nprior: absent.npz", "prior: "),
    ],
)
def test_the_error_of_a_wrong_file_names_it_and_the_key(
    tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / "p.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError) as error:
        parse_candidate(str(path))
    assert str(error.value).startswith(f"--policy: {path}: ")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_what_does_not_fit_the_data_is_refused() -> None:
    with pytest.raises(InputError, match="'fixed:arm=x': arm: no such model; the data has small"):
        parse_candidate("fixed:arm=x").check(models=MODELS, embedder="e", dim=3)
    with pytest.raises(InputError, match="'linucb' is given twice"):
        check_labels([parse_candidate("linucb"), parse_candidate("linucb")])


def test_a_published_package_is_a_policy_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "find_spec", lambda package: package)
    candidate = parse_candidate("paretobandit:forgetting_factor=1")
    assert (candidate.name, candidate.params) == ("paretobandit", {"forgetting_factor": 1})
    with pytest.raises(InputError, match="alfa: unknown parameter of mabwiser; valid: alpha"):
        parse_candidate("mabwiser:alfa=1")
    with pytest.raises(InputError, match="alpha: not a valid value: 'x'"):
        parse_candidate("mabwiser:alpha=x")
    monkeypatch.setattr(libraries, "find_spec", lambda package: None)
    with pytest.raises(
        InputError, match=r"mabwiser is not installed: pip install 'banditroute\[peers"
    ):
        parse_candidate("mabwiser")


def test_a_package_that_divides_by_the_weight_of_quality_is_refused_without_one() -> None:
    mabwiser = Candidate.of("mabwiser")
    mabwiser.check(models=["a"], embedder="e", dim=2, has_budget=False, quality_weight=0.7)
    with pytest.raises(InputError, match="mabwiser needs a weight of quality above 0"):
        mabwiser.check(models=["a"], embedder="e", dim=2, has_budget=False, quality_weight=0.0)

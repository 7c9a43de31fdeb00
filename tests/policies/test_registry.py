"""Building a policy by name: what is refused, and how the refusal helps."""

from __future__ import annotations

import hashlib
import json

import pytest

from policies import POLICIES, full_params, make_policy
from policies.linucb import LinUCB
from policies.params import Forgetting

_LINEAR = {"alpha": 0.2, "ridge": 50.0, "level": 1.0, "prior": 0.7}
_UCB = _LINEAR | {"width": "practical", "delta": 0.05, "noise": 0.5, "bound": 1.0}
DEFAULTS = {
    "thompson": {
        "alpha": 1.0,
        "context": 0.5,
        "tau": 0.2,
        "prior": 0.6,
        "gamma": 1.0,
        "half_life": 0.0,
    },
    "linucb": _UCB | {"gamma": 1.0, "half_life": 0.0},
    "pilot": _LINEAR
    | {
        "score": "inner",
        "trust": 20.0,
        "slopes": 30.0,
        "gain": 0.2,
        "gamma": 1.0,
        "half_life": 0.0,
    },
    "barp": {
        **{"beta": 0.005, "rate": 0.0003, "anchor": 0.1, "clip": 2.0, "batch": 32, "steps": 4},
        **{"memory": 4096, "gain": 0.2, "ridge": 50.0, "level": 1.0, "prior": 0.7},
    },
    "d-thompson": {
        "alpha": 1.0,
        "context": 0.5,
        "tau": 0.2,
        "prior": 0.6,
        "gamma": 0.998,
        "half_life": 0.0,
    },
    "d-linucb": _UCB | {"gamma": 0.998, "half_life": 0.0},
    "sw-linucb": _UCB | {"window": 500},
    "d-ucb": {"gamma": 0.998, "half_life": 0.0, "xi": 0.01, "bound": 1.0, "prior": 0.6},
    "sw-ucb": {"window": 200, "xi": 0.01, "bound": 1.0, "prior": 0.6},
    "random": {"prior": 0.6},
    "fixed": {"arm": "", "prior": 0.6},
    "epsilon-greedy": {"epsilon": 0.05, "prior": 0.6},
    "knn": {"k": 40, "memory": 4096, "distance": "cosine", "alpha": 0.1, "prior": 0.6},
}


def test_every_name_builds_its_class() -> None:
    for name, kind in POLICIES.items():
        assert type(make_policy(name, dim=3)) is kind


def test_parameters_arrive() -> None:
    policy = make_policy("linucb", dim=3, params={"alpha": 0.25, "gamma": 1})
    assert isinstance(policy, LinUCB)
    assert policy.dim == 3 and policy.params.alpha == 0.25 and policy.ridge.gamma == 1


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("linucbb", {}, "name: unknown policy 'linucbb'; did you mean 'linucb'?"),
        ("epsilon_greedy", {}, "name: unknown policy .*; did you mean 'epsilon-greedy'?"),
        ("zzz", {}, "name: unknown policy 'zzz'; valid: .*linucb.*random"),
        ("linucb", {"alhpa": 1.0}, "alhpa: unknown parameter of linucb; did you mean 'alpha'?"),
        ("linucb", {"zzz": 1.0}, "zzz: unknown parameter of linucb; valid: alpha, bound, "),
        ("linucb", {"dim": 3}, "dim: unknown parameter of linucb"),
        ("linucb", {"self": 3}, "self: unknown parameter of linucb"),
        ("linucb", {"alpha": "1"}, "alpha: not a valid value: '1'"),
        ("linucb", {"alpha": None}, "alpha: not a valid value: None"),
        ("linucb", {"alpha": True}, "alpha: not a valid value: True"),
        ("linucb", {"alpha": float("nan")}, "alpha: not a valid value: nan"),
        ("linucb", {"ridge": float("inf")}, "ridge: not a valid value: inf"),
        ("linucb", {"alpha": -1}, "alpha: at least 0"),
        ("linucb", {"gamma": 2.0}, "gamma: in .0, 1."),
        ("sw-linucb", {"gamma": 0.9}, "gamma: unknown parameter of sw-linucb"),
        ("pilot", {"width": "practical"}, "width: unknown parameter of pilot"),
        (
            "d-linucb",
            {"gamma": 0.9, "half_life": 5.0},
            "half_life: in place of gamma, not beside it",
        ),
        ("knn", {"k": 2.5}, "k: not a valid value: 2.5"),
        ("knn", {"k": True}, "k: not a valid value: True"),
        ("knn", {"k": 0}, "k: positive, not 0"),
        ("knn", {"distance": 3}, "distance: not a valid value: 3"),
        ("fixed", {"arm": 3}, "arm: not a valid value: 3"),
    ],
)
def test_errors_name_the_field_first_and_the_nearest(
    name: str, params: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make_policy(name, dim=3, params=params)


def test_a_bad_dimension_is_named() -> None:
    with pytest.raises(ValueError, match="^dim: at least 1"):
        make_policy("linucb", dim=0)


def test_parameters_and_defaults_are_part_of_the_identity_of_a_policy() -> None:
    """A change here starts the policy anew wherever it runs, so it must be intended."""
    filled = {name: full_params(name, {}) for name in POLICIES}
    assert filled == DEFAULTS
    kinds = {name: {key: type(value) for key, value in own.items()} for name, own in filled.items()}
    assert kinds == {n: {k: type(v) for k, v in own.items()} for n, own in DEFAULTS.items()}
    hashed = json.dumps(sorted((name, sorted(own.items())) for name, own in filled.items()))
    assert hashlib.sha256(hashed.encode()).hexdigest()[:12] == "f0b6c0637270"


@pytest.mark.parametrize("name", POLICIES)
def test_full_params_spell_out_the_defaults(name: str) -> None:
    filled = full_params(name, {})
    assert "dim" not in filled and "self" not in filled
    assert full_params(name, filled) == filled
    own = int | float | str | Forgetting
    explicit, implicit = (
        {key: value for key, value in vars(policy).items() if isinstance(value, own)}
        for policy in (make_policy(name, dim=1, params=filled), POLICIES[name](dim=1))
    )
    assert explicit == implicit


def test_full_params_keep_what_was_set() -> None:
    assert full_params("epsilon-greedy", {"epsilon": 0.2}) == {"epsilon": 0.2, "prior": 0.6}

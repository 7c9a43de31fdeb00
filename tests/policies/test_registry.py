"""Building a policy by name: what is refused, and how the refusal helps."""

from __future__ import annotations

import pytest

from policies import POLICIES, full_params, make_policy
from policies.linucb import LinUCB


def test_every_name_builds_its_class() -> None:
    for name, kind in POLICIES.items():
        assert type(make_policy(name, dim=3)) is kind


def test_parameters_arrive() -> None:
    policy = make_policy("linucb", dim=3, params={"alpha": 0.25, "gamma": 1})
    assert isinstance(policy, LinUCB)
    assert policy.dim == 3 and policy.alpha == 0.25 and policy.ridge.gamma == 1


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


@pytest.mark.parametrize("name", POLICIES)
def test_full_params_spell_out_the_defaults(name: str) -> None:
    filled = full_params(name, {})
    assert "dim" not in filled and "self" not in filled
    assert full_params(name, filled) == filled
    explicit, implicit = (
        {key: value for key, value in vars(policy).items() if isinstance(value, int | float | str)}
        for policy in (make_policy(name, dim=1, params=filled), POLICIES[name](dim=1))
    )
    assert explicit == implicit


def test_full_params_keep_what_was_set() -> None:
    assert full_params("epsilon-greedy", {"epsilon": 0.2}) == {"epsilon": 0.2, "prior": 0.6}

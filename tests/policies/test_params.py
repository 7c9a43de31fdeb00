"""Checks of parameters: which values pass, and that an error names the parameter."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from policies import params


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (params.positive, [1e-9, 3.0], [0.0, -1.0, math.nan]),
        (params.not_negative, [0.0, 3.0], [-1e-9, math.nan]),
        (params.share, [0.0, 0.5, 1.0], [-0.1, 1.1, math.nan]),
    ],
)
def test_numbers(check: Callable[..., None], good: list[float], bad: list[float]) -> None:
    for value in good:
        check(first=1.0, second=value)
    for value in bad:
        with pytest.raises(ValueError, match=f"^second: .* not {value}$"):
            check(first=1.0, second=value)


def test_choices() -> None:
    params.one_of("a", "b", kind="b")
    with pytest.raises(ValueError, match="^kind: a or b, not 'c'$"):
        params.one_of("a", "b", kind="c")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"gamma": 0.9, "half_life": 0.0}, 0.9),
        ({"gamma": 1.0, "half_life": 0.0}, 1.0),
        ({"gamma": 0.99, "half_life": 1.0}, 0.5),
        ({"gamma": 0.99, "half_life": 100.0}, 0.5**0.01),
    ],
)
def test_forgetting_is_a_factor_or_a_half_life(given: dict[str, float], expected: float) -> None:
    assert params.forgetting(0.99, **given) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gamma": 0.0, "half_life": 0.0}, "gamma: in .0, 1., not 0.0"),
        ({"gamma": 1.1, "half_life": 0.0}, "gamma: in .0, 1., not 1.1"),
        ({"gamma": 0.9, "half_life": 5.0}, "half_life: in place of gamma, not beside it"),
        ({"gamma": 0.99, "half_life": -1.0}, "half_life: at least 0"),
        ({"gamma": 0.99, "half_life": math.inf}, "half_life: in "),
    ],
)
def test_a_bad_way_to_forget_is_named(given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        params.forgetting(0.99, **given)

"""Checks of parameters: what passes, and that what does not is named."""

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

"""Mistakes that pydantic finds, in one line each with the path of the field in front."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from banditroute.core.mistakes import blame, explain, mistakes, path_of


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = Field(ge=0)


class Whole(BaseModel):
    parts: list[Part] = []
    names: dict[str, int] = {}
    low: int = 0
    high: int = 9

    @model_validator(mode="after")
    def _ordered(self) -> Whole:
        if self.low > self.high:
            raise blame("high", "below low")
        if self.low == self.high:
            raise ValueError("low and high are equal")
        return self


def refused(value: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate(value)
    return caught.value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"parts": [{"size": 1}, {"size": -1}]}, "parts[1].size: Input should be greater than or equal to 0"),
        ({"parts": [{}]}, "parts[0].size: Field required"),
        ({"parts": [{"size": 0, "x" * 300: 1}]}, f"parts[0].{'x' * 200}: Extra inputs are not permitted"),
        ({"names": {1: 1}}, "names[1]: Input should be a valid string"),
        ({"low": 10}, "high: below low"),
        ({"low": 9}, "low and high are equal"),
        ([], "Input should be a valid dictionary or instance of Whole"),
    ],
)  # fmt: skip
def test_the_first_mistake_in_one_line(value: Any, message: str) -> None:
    assert explain(refused(value)) == message


def test_all_mistakes_in_order() -> None:
    found = mistakes(refused({"parts": [{"size": "a"}, {}], "low": "b"}))
    assert [(mistake.kind, path_of(mistake.location)) for mistake in found] == [
        ("int_parsing", "parts[0].size"),
        ("missing", "parts[1].size"),
        ("int_parsing", "low"),
    ]

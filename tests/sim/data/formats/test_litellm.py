"""LiteLLM's spend logs: what is left out, and what the tool says of the rest."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.data.formats import load
from sim.errors import InputError


def row(request: str, model: str, spend: Any, **more: Any) -> dict[str, Any]:
    return {
        "request_id": request,
        "spend": spend,
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "startTime": f"2026-01-02T03:04:0{request[-1]}Z",
        "endTime": "2026-01-02T03:05:00Z",
        "model": model,
        "cache_hit": "False",
        "request_tags": '["team:a", "chat"]',
        "status": "success",
        "session_id": "s",
    } | more


ROWS = [
    row("r3", "gpt-4o", 0.0035),
    row("r1", "haiku", 0.0004, request_tags="[]"),
    row("r2", "gpt-4o", 0.0, cache_hit="True"),
    row("r4", "gpt-4o", 0.0, status="failure"),
    row("r5", "", 0.0),
    row("r6", "haiku", None),
]


def written(folder: Path, rows: list[dict[str, Any]], suffix: str) -> Path:
    path = folder / f"spend{suffix}"
    if suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("\n".join(json.dumps(one) for one in rows))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_hits_and_failures_are_left_out_and_said(tmp_path: Path, suffix: str) -> None:
    data = load(written(tmp_path, ROWS, suffix))
    assert data.models == ("gpt-4o", "haiku")
    assert data.task == ("", "team:a,chat", "team:a,chat")
    np.testing.assert_array_equal(
        data.cost_usd, [[np.nan, 0.0004], [0.0035, np.nan], [np.nan, np.nan]]
    )
    assert np.isnan(data.quality).all()
    assert data.notes[:4] == (
        "1 cache hits left out",
        "1 failures left out",
        "1 requests without a model left out",
        "no quality and no propensities: only for a warm start and the direct method",
    )
    with pytest.raises(InputError, match="spend: no answer is judged: nothing to replay"):
        data.complete()


def test_tokens_are_priced_where_there_is_no_spend(tmp_path: Path) -> None:
    prices = tmp_path / "prices.csv"
    prices.write_text("model,input_price,output_price\ngpt-4o,1,1\nhaiku,1,5\n")
    data = load(written(tmp_path, ROWS, ".csv"), prices=prices)
    assert data.cost_usd[2, 1] == pytest.approx(1500e-6)
    assert data.cost_usd[1, 0] == 0.0035


def test_stored_messages_are_the_prompt(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    rows = [
        row("r1", "a", 0.1, messages=messages, request_tags=["x"]),
        row("r2", "a", 0.1, messages=[{"role": "user", "content": None}, 3]),
    ]
    assert load(written(tmp_path, rows, ".jsonl")).prompts == ("be brief\nhello", "")
    rows[0]["messages"] = json.dumps(messages)
    data = load(written(tmp_path, rows[:1], ".jsonl"))
    assert data.prompts == ("be brief\nhello",)
    assert not any("prompts were not stored" in note for note in data.notes)


@pytest.mark.parametrize("messages", ["{}", {}, None, "", "null"])
def test_what_the_gateway_writes_for_nothing_is_no_prompt(tmp_path: Path, messages: Any) -> None:
    data = load(written(tmp_path, [row("r1", "a", 0.1, messages=messages)], ".jsonl"))
    assert data.prompts == ("",)
    assert "the log does not contain the prompts" in data.notes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"request_id": "r3"}, "row 2, column 'request_id': 'r3' appears twice"),
        ({"cache_hit": "maybe"}, "row 2, column 'cache_hit': 'maybe' is neither true nor false"),
        ({"startTime": "yesterday"}, "row 2, column 'startTime': 'yesterday' is not a time"),
        ({"request_tags": "{"}, "row 2, column 'request_tags': not JSON"),
        ({"request_tags": '{"a": 1}'}, "row 2, column 'request_tags': not a list of texts"),
        ({"spend": "-1"}, "row 2, column 'spend': -1 is not a cost"),
        ({"completion_tokens": "x"}, "row 2, column 'completion_tokens': 'x' is not a number"),
    ],
)
def test_bad_rows_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(written(tmp_path, [ROWS[0], ROWS[1] | change], ".csv"))


def test_nothing_but_hits_is_no_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no rows are left: 1 cache hits left out"):
        load(written(tmp_path, ROWS[2:3], ".csv"))

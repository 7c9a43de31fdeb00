"""LLMRouter's rows: routing data, score lists, and queries without outcomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.data.formats import load
from sim.errors import InputError


def jsonl(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "routing.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def routed(query: str, model: str, performance: Any, **more: Any) -> dict[str, Any]:
    tokens = {"token_num": 30, "input_tokens": 10, "output_tokens": 20}
    base = {"task_name": "gsm8k", "query": query, "ground_truth": "4", "metric": "GSM8K"}
    return base | {"model_name": model, "performance": performance} | tokens | more


def test_rows_of_one_query_make_one_prompt_and_duplicates_are_kept(tmp_path: Path) -> None:
    rows = [
        routed("one", "a", 1.0),
        routed("one", "b", 0.0),
        routed("two", "b", None),
        routed("one", "a", 0.5),
        routed("two", "a", 0.25, output_tokens=1000),
        routed("one", "b", 0.75, task_name="mmlu"),
    ]
    prices = tmp_path / "prices.csv"
    prices.write_text("model,input_price,output_price\na,1,2\nb,10,20\n")
    data = load(jsonl(tmp_path, *rows), prices=prices)
    assert data.models == ("a", "b")
    assert data.prompts == ("one", "two", "one", "one")
    assert data.task == ("gsm8k", "gsm8k", "gsm8k", "mmlu")
    nan = np.nan
    np.testing.assert_array_equal(data.quality, [[1, 0], [0.25, nan], [0.5, nan], [nan, 0.75]])
    expected = [[50e-6, 500e-6], [2010e-6, 500e-6], [50e-6, nan], [nan, 500e-6]]
    np.testing.assert_allclose(data.cost_usd, expected, rtol=1e-12)
    assert data.notes == (f"the costs of 6 answers are token counts at {prices}'s prices",)


def test_queries_are_prompts_without_outcomes(tmp_path: Path) -> None:
    data = load(jsonl(tmp_path, *({"task_name": "m", "query": q, "task_id": None} for q in "ab")))
    assert data.prompts == ("a", "b") and data.task == ("m", "m")
    assert data.models == () and data.quality.shape == (2, 0)
    with pytest.raises(InputError, match="routing holds prompts without outcomes"):
        data.restrict().complete()


def test_score_lists(tmp_path: Path) -> None:
    rows = [
        {"query": "one", "llm_name_list": ["a", "b"], "perf_list": [0.5, 1]},
        {"query": "two", "llm_name_list": ["b"], "perf_list": [0.25]},
    ]
    (tmp_path / "nq.json").write_text(json.dumps(rows))
    for path in (tmp_path / "nq.json", jsonl(tmp_path, *rows)):
        data = load(path)
        assert data.models == ("a", "b")
        np.testing.assert_array_equal(data.quality, [[0.5, 1.0], [np.nan, 0.25]])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (routed("q", "a", 1.0), routed("q", "", 1.0), "row 2, column 'model_name': empty"),
        (routed("q", "a", 1.0), {"query": "q"}, "row 2, column 'model_name': missing"),
        (routed("q", "a", 1.0), {"query": "q", "model_name": "b"}, "row 2, column 'performance': missing"),
        (routed("q", "a", 1.0), routed("q", "a", "1"), "row 2, column 'performance': not a number"),
        (routed("q", "a", 1.0), routed("q", "a", 1, input_tokens=-1), "row 2, column 'input_tokens': -1"),
        ({"query": "q"}, routed("q", "a", 1.0), "row 2, column 'model_name': an outcome, where"),
        ({"query": "q"}, {"query": ["q"]}, "row 2, column 'query': not a text"),
        ({"query": "q", "llm_name_list": ["a"], "perf_list": [1]},
         {"query": "q", "llm_name_list": ["a"], "perf_list": []}, "row 2, column 'perf_list': 0 scores for 1"),
        ({"query": "q", "llm_name_list": ["a"], "perf_list": [1]},
         {"query": "q", "llm_name_list": ["a", "a"], "perf_list": [1, 1]}, "'llm_name_list.1': 'a' appears twice"),
        ({"query": "q", "llm_name_list": ["a"], "perf_list": [1]},
         {"query": "q", "llm_name_list": ["a"], "perf_list": [2]}, "row 2, column 'perf_list.a': 2 is not in"),
    ],
)  # fmt: skip
def test_bad_rows_are_refused_by_row_and_column(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load(jsonl(tmp_path, first, second))

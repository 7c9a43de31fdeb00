"""Damaged files of every format: a loader loads them or says what is wrong, and nothing else."""

from __future__ import annotations

import copy
import csv
import io
import json
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from sim.data.dataset import MAX_COST_USD, Dataset
from sim.data.formats import FORMATS, load
from sim.errors import InputError

Rows = list[dict[str, Any]]

STRUCT = {"score": 0.5, "num_input_tokens": 10, "num_output_tokens": 5}
RB = {"prompt": "['p\u2028q', 'r']", "eval_name": "e", "a": 1.0, "a|total_cost": 0.1, "b": 0.5, "b|total_cost": 0.2}  # fmt: skip
SPEND = {
    "request_id": "r",
    "spend": 0.1,
    "prompt_tokens": 5,
    "completion_tokens": 7,
    "startTime": "2026-01-01T00:00:00",
    "model": "a",
    "cache_hit": "False",
    "request_tags": '["x"]',
    "status": "success",
}
ARENA = {
    "global_index": "A_1",
    "question": "q",
    "llm_selected": "a",
    "success": True,
    "token_usage": {"input_tokens": 1, "output_tokens": 2},
    "evaluation_result": {"score": 1.0, "inference_cost": 0.1},
}
SAMPLES: dict[str, tuple[str, Rows]] = {
    "canonical": (".parquet", [{"prompt": "p", "task": "t", "quality:a": 0.5, "cost:a": 0.1, "quality:b": 1.0, "cost:b": 0.2}] * 3),
    "routerbench-csv": (".csv", [RB] * 3),
    "routerbench-parquet": (".parquet", [RB] * 3),
    "routerbench-pickle": (".pkl", [RB] * 3),
    "sprout": (".parquet", [{"prompt": "p", "dataset": "d", "a": STRUCT, "b": STRUCT}] * 3),
    "paretobandit": (".jsonl", [{"prompt": "p\u2028", "arms": {"a": {"reward": 0.5, "cost": 0.1}, "b": {"reward": 1, "cost": 0.2}}, "source": "s"}] * 3),
    "routellm": (".csv", [{"prompt": 'p, "q"\nr', "a": True, "b": False}] * 3),
    "routerdc": (".json", [{"question": "q", "scores": {"a": 1.0, "b": 0.5}, "cluster_id": 1}] * 3),
    "llmrouter-routing": (".jsonl", [{"task_name": "t", "query": "q", "model_name": "a", "performance": 1.0, "input_tokens": 3, "output_tokens": 4}] * 3),
    "llmrouter-queries": (".jsonl", [{"task_name": "t", "query": "q"}] * 3),
    "llmrouter-scores": (".json", [{"query": "q", "llm_name_list": ["a", "b"], "perf_list": [0.5, 1]}] * 3),
    "routerarena": (".jsonl", [ARENA | {"global_index": f"A_{i}"} for i in range(3)]),
    "litellm-csv": (".csv", [SPEND | {"request_id": f"r{i}"} for i in range(3)]),
    "litellm-jsonl": (".jsonl", [SPEND | {"request_id": f"r{i}", "messages": [{"content": "hi"}]} for i in range(3)]),
}  # fmt: skip
# The slow tests have pandas, which a pickle needs. pyarrow imports it wherever it is there.
KINDS = [
    pytest.param(kind, marks=pytest.mark.slow) if suffix == ".pkl" else kind
    for kind, (suffix, _) in SAMPLES.items()
]
ODD = (None, True, "", "x", "nan", -1, 7.5, 10**400, 1e308, float("inf"), float("nan"), [], {}, [1, None], {"a": None}, "\ud800", "\x00", "é" * 9)  # fmt: skip


def content(suffix: str, rows: Rows) -> bytes:
    if suffix == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows).encode()
    if suffix == ".json":
        return json.dumps(rows, indent=1).encode()
    if suffix == ".csv":
        out = io.StringIO(newline="")
        names = list(dict.fromkeys(name for row in rows for name in row))
        writer = csv.DictWriter(out, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue().encode("utf-8", "surrogatepass")
    if suffix == ".pkl":
        import pandas

        return pickle.dumps(pandas.DataFrame(rows))
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


def attempt(path: Path, data: bytes, name: str | None) -> Dataset | InputError:
    """Load the bytes; anything but a sound data set or one line of an InputError fails."""
    path.write_bytes(data)
    try:
        dataset = load(path, format=name, trust_pickle=True)
    except InputError as error:
        assert str(error).startswith((f"{path}: ", "--format ")), error
        assert "\n" not in str(error), error
        return error
    shape = len(dataset.prompts), len(dataset.models)
    assert shape[0] and dataset.quality.shape == dataset.cost_usd.shape == shape
    assert not ((dataset.quality < 0.0) | (dataset.quality > 1.0)).any()
    assert not ((dataset.cost_usd < 0.0) | (dataset.cost_usd > MAX_COST_USD)).any()
    assert len(dataset.task) == len(dataset.split) == shape[0]
    dataset.digest()
    return dataset


def test_every_format_is_here() -> None:
    assert {name.partition("-")[0] for name in SAMPLES} == set(FORMATS)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_are_told_apart_by_content(tmp_path: Path, kind: str) -> None:
    suffix, rows = SAMPLES[kind]
    found = attempt(tmp_path / f"data{suffix}", content(suffix, rows), None)
    assert isinstance(found, Dataset), found
    forced = attempt(tmp_path / f"data{suffix}", content(suffix, rows), kind.partition("-")[0])
    renamed = attempt(tmp_path / "data.dat", content(suffix, rows), None)
    for other in (forced, renamed):
        assert isinstance(other, Dataset) and other.digest() == found.digest()


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_files(tmp_path: Path, kind: str) -> None:
    suffix, rows = SAMPLES[kind]
    whole = content(suffix, rows)
    offsets = range(0, len(whole), max(1, len(whole) // 150))
    for end in offsets:
        found = attempt(tmp_path / f"data{suffix}", whole[:end], None)
        if suffix in (".parquet", ".json"):
            assert isinstance(found, InputError), end
        elif suffix == ".jsonl" and not whole[:end].endswith((b"\n", b"}")):
            row = whole[:end].count(b"\n") + 1
            assert f": row {row}: not JSON" in str(found) or "no rows" in str(found), end


def mutated(rows: Rows, random: random.Random) -> Rows:
    rows = copy.deepcopy(rows)
    for _ in range(random.choice((1, 1, 2))):
        spots: list[tuple[dict[str, Any], str]] = []
        for row in rows:
            spots += [(row, key) for key in row]
            for part in row.values():
                if isinstance(part, dict):
                    spots += [(part, key) for key in part]
                    spots += [(p, k) for p in part.values() if isinstance(p, dict) for k in p]
        owner, key = random.choice(spots)
        match random.choice(("value", "value", "drop", "rename", "swap")):
            case "value":
                owner[key] = copy.deepcopy(random.choice(ODD))
            case "drop":
                del owner[key]
            case "rename":
                owner[key + "?"] = owner.pop(key)
            case "swap":
                other = random.choice(list(owner))
                owner[key], owner[other] = owner[other], owner[key]
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_changed_values_keys_and_columns(tmp_path: Path, kind: str) -> None:
    suffix, rows = SAMPLES[kind]
    seeded = random.Random(f"{kind} 1")
    refused = loaded = 0
    for _ in range(150):
        try:
            data = content(suffix, mutated(rows, seeded))
        # Not every damage can be written as parquet at all.
        except (pyarrow.ArrowException, OverflowError, ValueError, TypeError):
            continue
        name = seeded.choice((None, kind.partition("-")[0]))
        found = attempt(tmp_path / f"data{suffix}", data, name)
        refused += isinstance(found, InputError)
        loaded += isinstance(found, Dataset)
    assert refused > 3 and loaded > 3


# A pickle of random bytes may run anything.
@pytest.mark.parametrize(
    "kind", [kind for kind, (suffix, _) in SAMPLES.items() if suffix != ".pkl"]
)
def test_changed_bytes(tmp_path: Path, kind: str) -> None:
    suffix, rows = SAMPLES[kind]
    whole = content(suffix, rows)
    rng = np.random.default_rng(7)
    for _ in range(100):
        data = bytearray(whole)
        for at in rng.integers(len(data), size=rng.integers(1, 4)):
            data[at] = rng.integers(256)
        attempt(tmp_path / f"data{suffix}", bytes(data), None)

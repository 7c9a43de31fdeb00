"""LiteLLM's spend logs, as csv or jsonl: the cost of each request, without its quality.

Such a log has neither propensities nor quality. A policy can learn costs from it, and quality from
another file can be joined to it. It must never be replayed or weighted. Cache hits and failed
requests say nothing about a model, so they are left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Set
from datetime import UTC, datetime
from typing import Any

import numpy as np

from sim.data.dataset import Dataset
from sim.data.formats.builder import NO_PROPENSITIES, DatasetBuilder
from sim.data.formats.rows import Row
from sim.data.formats.source import Source
from sim.errors import InputError

CONTAINERS = ("csv", "json")
_HIT, _MISS = ("true", "t", "1"), ("false", "f", "0", "none", "null", "")


def fits(names: Set[str]) -> bool:
    """See `Format.fits`."""
    return names >= {"request_id", "model"} and not names.isdisjoint({"spend", "prompt_tokens"})


def read(source: Source) -> Dataset:
    """See `Format.read`. Rows are in the order in which the requests started."""
    builder = DatasetBuilder()
    left_out: Counter[str] = Counter()
    started_s: list[float] = []
    request_ids: set[str] = set()
    for row in source.rows():
        request_id = row.name("request_id")
        if request_id in request_ids:
            raise row.fault("request_id", f"{request_id!r} appears twice")
        request_ids.add(request_id)
        if _cached(row):
            left_out["cache hits"] += 1
        elif row.label("status").lower() not in ("", "success"):
            left_out["failures"] += 1
        elif not row.text("model"):
            left_out["requests without a model"] += 1
        else:
            started_s.append(_start_s(row))
            prompt = builder.add_prompt(_prompt(row), task=_tags(row))
            builder.add_answer(
                prompt,
                row.text("model"),
                cost_usd=row.cost_usd("spend"),
                input_tokens=row.tokens("prompt_tokens"),
                output_tokens=row.tokens("completion_tokens"),
            )
    notes = [f"{count} {kind} left out" for kind, count in left_out.items()]
    if left_out and not builder.prompts:
        raise InputError(f"{source.file}: no rows are left: {', '.join(notes)}")
    notes.append(f"no quality and {NO_PROPENSITIES}")
    if not any(builder.prompts):
        notes.append("the log does not contain the prompts")
    dataset = builder.build(source, notes=notes)
    return dataset.take(np.argsort(np.array(started_s), kind="stable"))


def _cached(row: Row) -> bool:
    value = row.label("cache_hit").lower()
    if value not in _HIT + _MISS:
        raise row.fault("cache_hit", f"{value[:40]!r} is neither true nor false")
    return value in _HIT


def _start_s(row: Row) -> float:
    """Return the start in seconds since the epoch, or 0 if the row has no start time.

    A time without a time zone is in UTC.
    """
    text = row.label("startTime")
    if not text:
        return 0.0
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise row.fault("startTime", f"{text[:40]!r} is not a time") from error


def _tags(row: Row) -> str:
    """Return the tags, joined by commas. The file holds a list, or a list as JSON text."""
    tags = _json(row, "request_tags") or []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise row.fault("request_tags", "not a list of texts")
    return ",".join(tags)


def _prompt(row: Row) -> str:
    """Return the contents of the messages as one text, or "" if the log has no messages."""
    messages = _json(row, "messages") or []
    if not isinstance(messages, list):
        raise row.fault("messages", "not a list")
    contents = [
        message.get("content") if isinstance(message, dict) else None for message in messages
    ]
    return "\n".join(content for content in contents if isinstance(content, str))


def _json(row: Row, column: str) -> Any:
    value = row.values.get(column)
    if row.missing(column):
        return []
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise row.fault(column, "not JSON") from error

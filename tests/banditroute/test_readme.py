"""The README's Python lines, run as they stand: against a daemon, and with nobody there."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from support.served_daemon import Served

from banditroute import client

README = Path(__file__).parents[2] / "README.md"
(SNIPPET,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def run_snippet() -> list[tuple[str, int | None]]:
    asked: list[tuple[str, int | None]] = []

    def my_llm(model: str, *, max_tokens: int | None) -> Any:
        asked.append((model, max_tokens))
        return SimpleNamespace(input_tokens=7, output_tokens=90)

    exec(SNIPPET, {"my_llm": my_llm, "my_judge": lambda answer: 0.8})
    return asked


def test_the_lines_route_and_post_feedback(live: Served) -> None:
    ((model, limit),) = run_snippet()
    (decision,) = live.rows("decisions")
    assert (model, limit) == (decision["model"], decision["max_output_tokens"])
    (feedback,) = live.rows("feedback")
    assert (feedback["quality"], feedback["output_tokens"]) == (0.8, 90)
    assert feedback["latency_ms"] >= 0.0


def test_the_lines_go_on_when_nobody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    wired = partial(client.Client, transport=httpx.MockTransport(refuse))
    monkeypatch.setattr(client, "Client", wired)
    assert run_snippet() == [("small", None)]

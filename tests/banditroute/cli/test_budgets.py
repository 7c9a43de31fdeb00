"""`banditroute budget` and `decisions cancel`: what they print, and what they refuse."""

from __future__ import annotations

import pytest
from support.commands import banditroute as run
from support.served_daemon import Served

ASK = {"input_tokens": 1_000, "max_output_tokens": 1_000}


def test_a_budget_is_added_changed_and_deleted(
    live: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    words = ("--window", "rolling", "--rolling-s", "60", "--tag", "team=a=b", "--rate", "0.01")
    more = ("--request-ceiling", "0.5", "--pacing", "pacer", "--expected-requests", "7")
    made = run("budget", "create", "team/a", "--cap", "2.5", *words, *more)
    assert made.exit_code == 0, made.output
    for shown in ("team/a", "60 s", "team=a=b", "2.5", "never"):
        assert shown in made.stdout
    budget = live.get("/v1/budgets/team/a")
    sent = {"tag": "team", "value": "a=b", "pacing": "pacer", "expected_requests": 7}
    assert budget.items() >= (sent | {"request_ceiling_usd": 0.5, "rate_usd": 0.01}).items()

    run("budget", "create", "all", "--cap", "1", "--window", "hour")
    listed = run("budget", "list").stdout
    assert "team/a" in listed and "all" in listed and "hour" in listed
    assert run("budget", "change", "all", "--cap", "3", "--pacing", "none").exit_code == 0
    assert run("budget", "topup", "all", "--usd", "0.25").exit_code == 0
    assert live.get("/v1/budgets/all").items() >= {"cap_usd": 3.25, "pacing": "none"}.items()
    dropped = run("budget", "delete", "team/a")
    assert (dropped.exit_code, dropped.stdout) == (0, "dropped team/a of pool default\n")
    assert [budget["name"] for budget in live.get("/v1/budgets")["data"]] == ["all"]


def test_a_budget_is_shown_to_the_nano_dollar(live: Served) -> None:
    run("budget", "create", "b", "--cap", "1")
    decision = live.route(models=["large"], **ASK)["decision_id"]
    live.feedback(decision, cost_usd=1.234e-6)
    result = run("budget", "show", "b")
    assert result.exit_code == 0
    shown = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert shown["settled_usd"] == "0.000001234" and shown["cap_usd"] == "1.000000000"
    assert shown["requests"] == "1" and "resets_at" not in shown and "tag" not in shown


def test_a_decision_is_cancelled(live: Served) -> None:
    run("budget", "create", "b", "--cap", "1")
    decision = live.route(models=["large"], **ASK)["decision_id"]
    assert live.get("/v1/budgets/b")["reserved_usd"] == 0.018
    for status in ("cancelled", "duplicate"):
        result = run("decisions", "cancel", decision)
        assert (result.exit_code, result.stdout) == (0, f"{status}\n")
    assert live.get("/v1/budgets/b")["reserved_usd"] == 0.0
    used = live.route()["decision_id"]
    live.feedback(used, quality=1.0)
    result = run("decisions", "cancel", used)
    assert result.exit_code == 2 and "feedback says that it was used" in result.stderr


MISTAKES = [
    (["create", "b", "--cap", "1", "--tag", "team"], "--tag: KEY=VALUE is expected"),
    (["create", "b", "--cap", "1", "--tag", "=a"], "--tag: KEY=VALUE is expected"),
    (["create", "b", "--cap", "-1"], "cap_usd"),
    (["create", "b", "--cap", "nan"], "--cap: a number is expected"),
    (["create", "b", "--cap", "1", "--window", "week"], "window"),
    (["create", "b", "--cap", "1", "--window", "rolling"], "rolling_s"),
    (["create", "b", "--cap", "1", "--pool", "nowhere"], "'nowhere'"),
    (["create", "there", "--cap", "1"], "has a budget 'there'"),
    (["change", "there"], "nothing to change"),
    (["change", "there", "--pacing", "fast"], "pacing"),
    (["change", "none", "--cap", "1"], "no budget 'none'"),
    (["topup", "there", "--usd", "0"], "top_up_usd"),
    (["show", "none"], "no budget 'none'"),
    (["delete", "none"], "no budget 'none'"),
    (["list", "--pool", "nowhere"], "'nowhere'"),
]


def test_a_mistake_is_reported_in_one_line(live: Served) -> None:
    assert live.post("/v1/budgets", {"name": "there", "cap_usd": 1.0}).status_code == 201
    before = live.rows("budgets")
    for words, message in MISTAKES:
        result = run("budget", *words)
        assert result.exit_code == 2 and message in result.stderr, (words, result.output)
        assert result.stderr.startswith("banditroute: ")
        assert len(result.stderr.splitlines()) == 1
        assert live.rows("budgets") == before


def test_a_missing_cap_is_named() -> None:
    result = run("budget", "create", "b")
    assert result.exit_code == 2 and "--cap" in result.stderr

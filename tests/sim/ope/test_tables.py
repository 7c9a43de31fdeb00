from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from rich.console import Console

from sim.ope import read_parquet as files
from sim.ope.bandit_log import BanditLog
from sim.ope.evaluation import compare_with_log, evaluate, not_identified
from sim.ope.rejection_replay import replay
from sim.ope.tables import as_json, replayed_json, show, show_replayed
from sim.play.candidate import Candidate

Make = Callable[..., BanditLog]
FIXED = Candidate.of("fixed", {"arm": "c"}, label="always c")
LINUCB = Candidate.of("linucb", {"alpha": 0.1})


def printed(show_on: Callable[[Console], None]) -> str:
    console = Console(file=io.StringIO(), width=200)
    show_on(console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_an_evaluation_is_printed_whole(make_log: Make) -> None:
    log = make_log(1_200, cost=True, missing=0.2)
    log = replace(log, left_out={"pinned": 1_234}, notes=["a note"])
    history = files.history_of(log)
    history = replace(history, requests=replace(history.requests, priced=7))
    found = evaluate(history, [LINUCB, FIXED])
    found.policies.append(not_identified("logged:who=me"))
    found.comparison = compare_with_log(found, make_log(300, seed=9), "who=you")
    text = printed(lambda console: show(console, found))
    for line in (
        "planted: 1,200 decisions over 3 models (a, b, c)",
        "left out: 1,234 pinned",
        "learned from the first 600, evaluated on 600",
        "never counted as zero",
        "note: a note",
        "note: 7 decisions were made under a budget",
        "quality, by dr, 95% intervals",
        "paired differences in cost, $ per request, by dr",
        "quality by all estimators",
        "the zero router, which does not look at the prompt",
        "linucb - always c",
        "mean of who=you",
        "refused: logged:who=me: its log holds",
    ):
        assert line in text, line
    assert "nan" not in text


def test_a_measure_that_was_not_estimated_has_no_row(make_log: Make) -> None:
    log = make_log(800, cost=True)
    known = (np.arange(800) >= 400) & (np.arange(800) < 430)
    history = files.history_of(replace(log, cost_usd=np.where(known, log.cost_usd, np.nan)))
    text = printed(lambda console: show(console, evaluate(history, [FIXED])))
    assert "warning: always c: cost: observed in too few rows" in text
    part = text.split("cost, $ per request, by dr")[1].split("utility, by dr")[0]
    assert "logged" in part and "always c" not in part


def test_json_holds_the_same_and_is_json(make_log: Make) -> None:
    found = evaluate(files.history_of(make_log(600, cost=True)), [FIXED])
    report = json.loads(json.dumps(as_json(found), allow_nan=False))
    assert (report["decisions"], report["learned"], report["judged"]) == (600, 300, 300)
    one = report["policies"][1]
    assert one["label"] == "always c" and one["support"]["ess"] > 50
    own = found.policies[1].estimates["quality"]["dr"].normal
    assert one["estimates"]["quality"]["dr"]["normal"] == {
        "mean": own.mean,
        "low": own.low,
        "high": own.high,
    }
    assert report["differences"][0]["label"] == "always c - logged"
    assert report["zero_router"][0]["label"] == "logged"


def test_an_infinite_number_is_null(make_log: Make) -> None:
    """One session alone has an infinite interval, which JSON cannot hold."""
    log = replace(make_log(600), session=np.zeros(600, dtype=np.intp))
    found = evaluate(files.history_of(log), [FIXED])
    report = json.loads(json.dumps(as_json(found), allow_nan=False))
    assert report["policies"][1]["estimates"]["quality"]["dr"]["normal"]["low"] is None
    assert "-inf to inf" in printed(lambda console: show(console, found))


def test_rejection_replay_says_why_it_is_used(make_log: Make) -> None:
    history = files.history_of(make_log(400))
    replayed = [replay(history, one, first=first) for one, first in ((FIXED, 0), (FIXED, 350))]
    text = printed(lambda console: show_replayed(console, replayed))
    assert "only rejection replay can evaluate it" in text
    assert f"{len(replayed[0].rows)} of 400" in text
    assert "refused: always c:" in text
    plain = json.loads(json.dumps(replayed_json(replayed), allow_nan=False))
    assert plain[0]["accepted"] == len(replayed[0].rows)
    assert plain[0]["outside"] == replayed[0].outside
    assert plain[0]["estimates"]["quality"]["mean"] == replayed[0].estimates["quality"].mean
    assert plain[1]["estimates"] == {} and plain[1]["refusal"]

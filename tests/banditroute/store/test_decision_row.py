from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, select
from support.small_log import TTL, Book

from banditroute.decide.columns import Decisions
from banditroute.store.decision_row import DECISION_COLUMNS, TERMS, Note, as_rows, decode, encode
from banditroute.store.tables import decisions
from policies.exploration import shares

CHEAP = {"max_cost_usd": np.array([0.0001, np.inf, 0.01, np.inf, 0.002, np.inf, 0.05, np.inf])}


def rows_of(book: Book) -> list[dict[str, Any]]:
    with book.engine.connect() as connection:
        query = select(decisions).order_by(decisions.c.id)
        return [dict(row) for row in connection.execute(query).mappings()]


def check(book: Book, decided: Decisions, row: dict[str, Any], i: int) -> None:
    logged = decode(row)
    chosen = int(decided.chosen[i])
    names = [model.name for model in decided.scored.columns.models]
    assert logged.arms == names and row["model"] == names[chosen]
    assert logged.prices == [model.price_id for model in decided.scored.columns.models]
    assert logged.verdict.tobytes() == decided.reasons[i].tobytes()
    assert logged.features.tobytes() == decided.scored.requests.features[i].tobytes()
    assert logged.mean.tobytes() == decided.scored.mean[i].tobytes()
    assert logged.std.tobytes() == decided.scored.std[i].tobytes()
    terms = {
        "cost": decided.scored.cost_usd,
        "latency": decided.scored.latency_ms,
        "penalty": decided.scored.penalty,
        "explore": decided.explore,
        "pmf": decided.pmf,
    }
    for name in TERMS:
        assert getattr(logged, name).tobytes() == terms[name][i].tobytes(), name
    assert list(logged.scores) == list(decided.scored.scores)
    for name, value in decided.scored.scores.items():
        assert logged.scores[name].tobytes() == value[i].tobytes(), name
    assert (logged.u, logged.policy) == (
        decided.u[i],
        decided.scored.columns.snapshot.policy_identity.id,
    )
    assert row["version"] == decided.scored.columns.snapshot.version
    assert row["propensity"] == decided.pmf[i, chosen]
    weights = [row["w_quality"], row["w_cost"], row["w_latency"]]
    assert weights == decided.scored.requests.preference[i].tolist()
    assert row["reserved_nano"] == decided.scored.reservation_nano[i, chosen]
    assert row["max_output_tokens"] == decided.scored.max_output_tokens[i, chosen]
    assert row["input_cost"] == decided.scored.input_cost_usd[i, chosen]
    pmf, again = logged.recompute()
    assert pmf.tobytes() == decided.pmf[i].tobytes()
    assert again == row["model"]


@pytest.mark.parametrize("policy", ["linucb", "random", "epsilon-greedy", "knn"])
@pytest.mark.parametrize("share", [0.0, 0.2])
@pytest.mark.parametrize("limits", [{}, CHEAP], ids=["free", "filtered"])
def test_what_was_decided_is_read_back_and_recomputed_bit_for_bit(
    engine: Engine, policy: str, share: float, limits: dict[str, Any]
) -> None:
    book = Book(engine, policy=policy, exploration_share=share, exploration_cost_share=10.0)
    book.feed(40)
    before = len(rows_of(book))
    decided, ids = book.decide(8, **limits)
    rows = rows_of(book)[before:]
    assert [row["id"] for row in rows] == ids
    eligible = [i for i in range(8) if decided.chosen[i] >= 0]
    assert len(eligible) == len(rows) and (not limits or decided.reasons.any())
    assert not share or decided.explore.any()
    for i, row in zip(eligible, rows, strict=True):
        check(book, decided, row, i)


def test_a_drained_or_unknown_model_leaves_the_other_columns_right(book: Book) -> None:
    book.feed(20)
    router = book.router()
    router.swap(models=[m for m in router.columns.models if m.name != "small"])
    decided = router.decide(book.requests(3))
    notes = [Note(id=str(i)) for i in range(3)]
    rows = as_rows(encode(decided, notes, pool="default", created_at_us=1, expires_at_us=2))
    for i, row in enumerate(rows):
        named = dict(zip(DECISION_COLUMNS, row, strict=True))
        check(book, decided, named, i)
        assert decode(named).arms == ["large", "medium"]


def test_a_row_that_chose_nothing_is_not_encoded(book: Book) -> None:
    limit = np.array([np.inf, 0.0, np.inf])
    decided, ids = book.decide(3, max_cost_usd=limit)
    assert decided.chosen[1] == -1
    assert ids == ["default-000000", "default-000002"]
    assert [row["id"] for row in rows_of(book)] == ids


def test_notes_and_times_are_kept(book: Book) -> None:
    decided = book.router().decide(book.requests(1))
    note = Note("id", prompt_hash="h", session_id="s", task="t", tags='{"a": 1}', request_id="r")
    (row,) = as_rows(
        encode(decided, [note], pool="default", created_at_us=5, expires_at_us=5 + TTL)
    )
    named = dict(zip(DECISION_COLUMNS, row, strict=True))
    for name in ("id", "prompt_hash", "session_id", "task", "tags", "request_id"):
        assert named[name] == getattr(note, name)
    assert (named["created_at"], named["expires_at"]) == (5, 5 + TTL)
    assert named["pool"] == "default" and named["overridden_by"] is None


def test_the_cost_prior_is_of_the_price_row_and_not_of_what_was_learned(book: Book) -> None:
    book.feed(30)
    decided, _ = book.decide(1)
    row, chosen = rows_of(book)[-1], int(decided.chosen[0])
    model = decided.scored.columns.models[chosen]
    output = model.prior_output_tokens * model.output_price / 1e6
    assert row["cost_prior"] == pytest.approx(
        decided.scored.input_cost_usd[0, chosen] + output, rel=1e-12
    )


def test_explain_names_the_reason_against_each_model(book: Book) -> None:
    book.decide(1, models=[frozenset({"large"})])
    shown = decode(rows_of(book)[0]).explain()
    assert [(m["model"], m["rejected"], m["probability"]) for m in shown] == [
        ("small", "not_allowed", 0.0),
        ("large", None, 1.0),
        ("medium", "not_allowed", 0.0),
    ]


def test_another_exploration_share_gives_another_pmf(book: Book) -> None:
    """The recomputation really uses what the row holds."""
    decided, _ = book.decide(1)
    row = rows_of(book)[0]
    explore, _ = shares(
        decided.pmf,
        decided.reasons == 0,
        decided.scored.cost_usd,
        share=0.3,
        cost_share=10.0,
        spend_rate_usd=1.0,
        min_propensity=0.0,
    )
    k = len(decided.scored.columns.models)
    terms = np.frombuffer(row["terms"], dtype="<f8").reshape(len(TERMS), k).copy()
    terms[TERMS.index("explore")] = explore[0]
    pmf, _ = decode(row | {"terms": terms.tobytes()}).recompute()
    assert not np.array_equal(pmf, decided.pmf[0])

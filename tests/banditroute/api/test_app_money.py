"""What a budget refuses, gives back and settles, over HTTP."""

from __future__ import annotations

import numpy as np
from support.served_budgets import (
    BUDGETS,
    LARGE,
    MEDIUM,
    SMALL,
    batch,
    budget,
    decided,
    exceeded,
    names_budget,
    route,
    service,
    set_all,
    sums,
)
from support.served_daemon import Served, assert_error

from banditroute.store.decision_row import decode
from banditroute.store.tables import decisions, reservations


def test_a_request_that_no_model_fits_is_told_which_budget_and_when_it_resets(
    served: Served,
) -> None:
    budget(served, 0.0002, window="hour")
    answer = route(served)
    error = exceeded(answer)
    assert error["param"] == "pool" and f"needs {SMALL}" in error["message"]
    shown = error["budget"]
    assert shown.items() >= {"cap_usd": 0.0002, "settled_usd": 0.0, "window": "hour"}.items()
    assert f"resets at {shown['resets_at']}" in error["message"]
    assert 1 <= int(answer.headers["retry-after"]) <= 3_600
    assert served.rows("decisions") == served.rows("reservations") == []


def test_how_long_to_wait_depends_on_what_could_help(served: Served) -> None:
    budget(served, 1.5 * SMALL)
    assert route(served).json()["model"] == "small"
    answer = route(served)
    assert exceeded(answer)["budget"]["reserved_usd"] == SMALL
    assert answer.headers["retry-after"] == "5"  # an answer may settle
    (row,) = served.rows("decisions")
    served.feedback(row["id"], cost_usd=SMALL)
    service(served).leases._last_sums.clear()  # as a quarter of a second does
    answer = route(served)
    assert "it never resets" in exceeded(answer)["message"]
    assert answer.headers["retry-after"] == "3600"


def test_a_batch_is_filtered_again_row_by_row_and_each_law_is_the_true_one(
    served: Served,
) -> None:
    budget(served, 0.03, pacing="none")
    rows = batch(served, 300)
    good = [row for row in rows if "error" not in row]
    assert rows[: len(good)] == good and 1 < len(good) < 300
    for row in rows[len(good) :]:
        names_budget(row["error"])
    logged = {row["id"]: row for row in served.rows("decisions")}
    assert sorted(logged) == sorted(row["decision_id"] for row in good)
    left, kept = 30_000_000, []
    for row in good:
        mine = decode(logged[row["decision_id"]])
        pmf, chosen = mine.recompute()
        np.testing.assert_array_equal(pmf, mine.pmf)
        assert chosen == row["model"] and row["propensity"] == pmf[mine.arms.index(chosen)]
        # Exactly what is left decides who is out.
        prices = {"small": SMALL, "medium": MEDIUM, "large": LARGE}
        barred = [name for name, usd in prices.items() if round(usd * 1e9) > left]
        assert [m["model"] for m in mine.explain() if m["rejected"] == "budget"] == barred
        left -= round(row["reserved_cost_usd"] * 1e9)
        kept.append(len(barred))
    assert 0 <= left < 250_000 and {0, 1, 2} >= set(kept)
    assert sums(served)["reserved"] == 30_000_000 - left


def test_a_model_that_is_too_dear_is_left_out_for_the_budget(served: Served) -> None:
    budget(served, MEDIUM)
    shown = served.get(f"/v1/decisions/{decided(served)}")
    why = {model["model"]: model["rejected"] for model in shown["models"]}
    assert why == {"small": None, "medium": None, "large": "budget"}
    assert next(m for m in shown["models"] if m["model"] == "large")["probability"] == 0.0
    exceeded(route(served, "large"))


def test_what_an_answer_did_not_cost_is_there_at_once(served: Served) -> None:
    budget(served, 0.03)
    one = decided(served, "large")
    exceeded(route(served, "large"))
    assert served.feedback(one, cost_usd=0.001) == "accepted"
    again = decided(served, "large")
    found = sums(served)
    assert (found["settled"], found["reserved"]) == (1_000_000, 18_000_000)
    # Tokens say it as well, at the price that the decision was taken at.
    assert served.feedback(again, input_tokens=1_000, output_tokens=10) == "accepted"
    assert sums(served)["settled"] == 1_000_000 + 3_150_000


def test_what_an_answer_cost_above_its_reservation_is_an_overrun(served: Served) -> None:
    budget(served, LARGE)
    one = decided(served, "large")
    assert served.feedback(one, cost_usd=0.02) == "accepted"
    found = sums(served)
    assert (found["settled"], found["overruns"], found["free"]) == (20_000_000, 2_000_000, 0)
    exceeded(route(served, "small"))


def test_an_overdue_answer_settles_and_an_expired_reservation_counts_until_then(
    served: Served,
) -> None:
    budget(served, 1.0)
    one = decided(served, "large")
    set_all(served, reservations, expires_at=1)
    set_all(served, decisions, expires_at=1)
    served.client.portal.call(service(served).leases.refresh)
    found = sums(served)
    assert (found["reserved"], found["expired"]) == (0, 18_000_000)
    assert served.feedback(one, cost_usd=0.004) == "late"
    found = sums(served)
    assert (found["settled"], found["expired"]) == (4_000_000, 0) and served.learned() == []


def test_a_decision_that_was_never_used_is_cancelled_once(served: Served) -> None:
    budget(served, LARGE)
    one = decided(served, "large")
    exceeded(route(served, "large"))
    path = f"/v1/decisions/{one}/cancel"
    assert served.post(path).json() == {"status": "cancelled"}
    used = decided(served, "large")
    assert served.post(path).json() == {"status": "duplicate"}
    assert (sums(served)["reserved"], served.get(f"{BUDGETS}/b")["requests"]) == (18_000_000, 1)
    assert served.get(f"/v1/decisions/{one}")["cancelled_at"].endswith("Z")
    assert served.get(f"/v1/decisions/{used}")["cancelled_at"] is None
    served.feedback(used, quality=0.5)
    refused = served.post(f"/v1/decisions/{used}/cancel")
    assert_error(refused, 409, "conflict", "id")
    assert sums(served)["reserved"] == 18_000_000

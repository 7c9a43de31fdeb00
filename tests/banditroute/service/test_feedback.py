"""Rows of the wire become posts, and posts of all kinds are stored in order or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from support.small_log import Book

from banditroute.contract.schemas import FeedbackRequest
from banditroute.core.errors import InvalidValue
from banditroute.service.feedback import Feedback, feedback_of, store_feedback
from banditroute.store.comparisons import Preferred
from banditroute.store.feedback import FeedbackResult, Post
from banditroute.store.sessions import SessionQuality


@pytest.mark.parametrize(
    ("sent", "post"),
    [
        ({"decision_id": "d", "quality": 1.0}, Post("d", "default", quality=1.0)),
        ({"decision_id": "d", "model": "m", "source": "s"}, Post("d", "s", "s", model="m")),
        ({"decision_id": "d", "preferred_over": "e"}, Preferred("d", "e", "default")),
        ({"decision_id": "d", "preferred_over": "e", "source": "s"}, Preferred("d", "e", "s", "s")),
        ({"session_id": "x", "quality": 0.5}, SessionQuality("default", "x", "default", 0.5)),
        ({"session_id": "x", "quality": 0.5, "pool": "p", "source": "s", "key": "k"},
         SessionQuality("p", "x", "k", 0.5, "s")),
    ],
)  # fmt: skip
def test_a_row_says_what_it_says(sent: dict[str, Any], post: Feedback) -> None:
    assert feedback_of(FeedbackRequest(**sent)) == post


def test_whoever_is_to_blame_is_named(book: Book) -> None:
    _, (one,) = book.decide(1)
    posts = (
        Post(one, "k", quality=1.0),
        Post(one, "k", quality=0.5),
        Post("nobody", "k", quality=1.0),
    )
    assert book.post(*posts) == [
        FeedbackResult("accepted"), FeedbackResult("conflict", "key"), FeedbackResult("unknown", "decision_id"),
    ]  # fmt: skip


def test_what_was_stored_before_a_mistake_is_undone(book: Book) -> None:
    _, (one,) = book.decide(1, session="s", prompt="p")
    _, (two,) = book.decide(1, session="s", prompt="q")
    end = book.log.end()
    good: list[Feedback] = [SessionQuality("default", "s", "k", 0.5), Post(one, "k", cost_usd=1.0)]
    with book.begin() as connection, pytest.raises(InvalidValue) as caught:
        store_feedback(connection, [*good, Preferred(one, two, "k")], now_us=book.now)
    assert (caught.value.row, caught.value.param) == (2, "preferred_over")
    # The transaction went on and was committed: only this call left no trace.
    assert book.log.end() == end
    assert book.send(*good) == ["accepted", "accepted"]

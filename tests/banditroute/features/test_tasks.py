"""The caller's task as one-hot columns, alone and through the daemon."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from support.served_daemon import Served, serve

from banditroute.core.pool import PoolOptions
from banditroute.features.embedding import FEATURES
from banditroute.features.tasks import identity, widen
from banditroute.settings import PoolFile

PRICES = {"input_price": 1.0, "output_price": 2.0}
MODELS = [PRICES | {"name": name} for name in ("a", "b")]


def test_a_named_task_is_one_column_before_the_intercept() -> None:
    features = np.array([[0.5, 1.0]] * 4, dtype=np.float32)
    wide = widen(features, ["sum", None, "chat", "nobody's"], ["chat", "sum"])
    assert wide.dtype == np.float32
    assert wide.tolist() == [[0.5, 0, 1, 1], [0.5, 0, 0, 1], [0.5, 1, 0, 1], [0.5, 0, 0, 1]]


def test_without_names_nothing_changes() -> None:
    features = np.ones((2, 3), dtype=np.float32)
    assert widen(features, ["chat", None], []) is features
    assert identity("hashing-abc", []) == "hashing-abc"


def test_the_names_and_their_order_are_part_of_the_identity() -> None:
    found = {identity("e", names) for names in ([], ["a"], ["b"], ["a", "b"], ["b", "a"])}
    assert len(found) == 5


@pytest.mark.parametrize("bad", [["a", "a"], [""], ["a\nb"], "a", [str(i) for i in range(65)]])
def test_bad_names_are_refused(bad: object) -> None:
    with pytest.raises(ValidationError, match="tasks"):
        PoolOptions.model_validate({"tasks": bad})


def daemon_with(path: Path, tasks: list[str]) -> PoolFile:
    return PoolFile.model_validate({"models": MODELS, "tasks": tasks})


def features(served: Served) -> list[list[float]]:
    rows = served.rows("decisions")
    return [np.frombuffer(row["features"], dtype="<f4").tolist() for row in rows]


def test_a_pool_with_tasks_learns_from_them(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with serve(path, pools={"default": daemon_with(path, ["chat", "code"])}) as served:
        for task in ("code", "chat", "another", None):
            answer = served.route(**({"task": task} if task else {}))
            served.feedback(answer["decision_id"], quality=float(task == "code"))
        policy = served.policy()
        assert policy["learned"] == 4 and "+tasks-" in policy["embedder"]
        assert {len(row) for row in features(served)} == {FEATURES + 2}
        assert [row[-3:] for row in features(served)] == [
            [0, 1, 1],
            [1, 0, 1],
            [0, 0, 1],
            [0, 0, 1],
        ]
        assert served.rebuilt_digest() == policy["digest"]
    # Other columns, another policy: outcomes whose features do not fit are left out.
    with serve(path, pools={"default": daemon_with(path, ["chat"])}) as served:
        other = served.policy()
        assert other["policy"] != policy["policy"]
        assert (other["learned"], other["skipped"]) == (0, 4)
        served.route(task="code")
        assert len(features(served)[-1]) == FEATURES + 1
    with serve(path, pools={"default": daemon_with(path, ["chat", "code"])}) as served:
        assert served.policy()["digest"] == policy["digest"]

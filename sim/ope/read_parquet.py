"""Bandit logs in parquet files: the Open Bandit Dataset, and a form of our own.

Our own form has the columns ``arm``, ``propensity`` and ``reward``. It may have ``cost``,
``session``, ``pmf:<arm>`` for every arm, and numeric features ``x:<name>``. All other columns are
tags that rows can be selected by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.core.pool import Model
from banditroute.decide.columns import RequestBatch
from banditroute.learn.fold import Event
from policies import Outcome
from policies.base import Bools, Float32, Float64
from sim.data.formats.rows import require_columns
from sim.errors import InputError
from sim.ope.bandit_log import BanditLog, number_sessions
from sim.ope.logged_requests import DecisionHistory, LoggedRequests

if TYPE_CHECKING:
    import pyarrow

_OPEN_BANDIT = {"item_id": "arm", "propensity_score": "propensity", "click": "reward"}
QUALITY_ALONE = (1.0, 0.0, 0.0)
EMBEDDER = "file"


def is_log(path: Path) -> bool:
    """Return whether a file is a parquet with propensities."""
    import pyarrow
    import pyarrow.parquet

    try:
        names = pyarrow.parquet.read_schema(path).names
    except (pyarrow.ArrowException, OSError):
        return False
    return "propensity" in names or set(_OPEN_BANDIT) <= set(names)


def read(path: Path, *, tags: Mapping[str, str] | None = None) -> BanditLog:
    """Read a log.

    Parameters
    ----------
    path : Path
        A parquet file.
    tags : mapping of str to str, optional
        Only rows with these values in these columns.

    Raises
    ------
    InputError
        Naming the file, and the row (from 1) and the column if the fault is in one.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a parquet file ({str(error).splitlines()[0]})") from error
    if set(_OPEN_BANDIT) <= set(table.column_names):
        table = table.rename_columns([_OPEN_BANDIT.get(n, n) for n in table.column_names])
    require_columns(str(path), table.column_names, "arm")
    arms = table["arm"].to_pylist()
    if None in arms:
        raise InputError(f"{path}: row {arms.index(None) + 1}, column 'arm': missing")
    rows = _selected(path, table, tags or {})
    if not len(rows):
        raise InputError(f"--tag: no row of {path} is left")
    return _Rows(path, table, rows).log(sorted(set(map(str, arms)), key=_natural))


def _natural(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (1 << 62, name)


def _selected(path: Path, table: pyarrow.Table, tags: Mapping[str, str]) -> NDArray[np.intp]:
    is_kept = np.ones(table.num_rows, dtype=np.bool_)
    for key, wanted in tags.items():
        if key not in table.column_names:
            raise InputError(f"--tag: {path} has no column {key!r}")
        is_kept &= np.array([str(value) == wanted for value in table[key].to_pylist()], dtype=bool)
    return np.flatnonzero(is_kept)


class _Rows:
    """The selected rows of a table.

    Parameters
    ----------
    path : Path
        The file, for messages.
    table : pyarrow.Table
        The whole table.
    rows : int[n]
        The selected rows.
    """

    def __init__(self, path: Path, table: pyarrow.Table, rows: NDArray[np.intp]) -> None:
        self.path, self.table, self.rows = path, table, rows
        self.names = table.column_names

    def log(self, models: Sequence[str]) -> BanditLog:
        """Return the rows as a log over these models."""
        n = len(self.rows)
        propensity = self._numbers("propensity")
        is_valid = (propensity > 0.0) & (propensity <= 1.0)
        self._check("column 'propensity'", propensity, is_valid, "{:g} is not in (0, 1]")
        position = {model: k for k, model in enumerate(models)}
        chosen = np.array([position[str(arm)] for arm in self._values("arm")])
        action_dist = None
        if any(name.startswith("pmf:") for name in self.names):
            action_dist = self._action_dist([f"pmf:{model}" for model in models])
            is_valid = np.abs(action_dist[np.arange(n), chosen] - propensity) <= 1e-6
            self._check("column 'propensity'", propensity, is_valid, "not that of its pmf")
        reward = self._numbers("reward")
        is_valid = ~((reward < 0.0) | (reward > 1.0))
        self._check("column 'reward'", reward, is_valid, "{:g} is not in [0, 1]")
        session = self._values("session") if "session" in self.names else [None] * n
        return BanditLog(
            name=self.path.stem,
            models=tuple(models),
            features=self._features(),
            chosen=chosen,
            propensity=propensity,
            action_dist=action_dist,
            quality=reward,
            cost_usd=self._numbers("cost") if "cost" in self.names else np.full(n, np.nan),
            preference=np.tile(QUALITY_ALONE, (n, 1)),
            tau_cost_usd=np.ones(n),
            session=number_sessions(session),
        )

    def _action_dist(self, names: Sequence[str]) -> Float64:
        """Return the columns of the pmf, float64[n, K]."""
        pmf = np.column_stack([self._numbers(name) for name in names])
        for name, column in zip(names, pmf.T, strict=True):
            is_valid = (column >= 0.0) & (column <= 1.0)
            self._check(f"column {name!r}", column, is_valid, "{:g} is not in [0, 1]")
        total = pmf.sum(axis=1)
        is_valid = np.abs(total - 1.0) <= 1e-4
        self._check("columns 'pmf:*'", total, is_valid, "their sum is {:g}, not 1")
        return pmf

    def _features(self) -> Float32:
        """Return the columns ``x:<name>`` and an intercept, float32[n, d]."""
        columns = {name: self._numbers(name) for name in self.names if name.startswith("x:")}
        for name, column in columns.items():
            self._check(f"column {name!r}", column, ~np.isnan(column), "missing")
        return np.column_stack([*columns.values(), np.ones(len(self.rows))]).astype(np.float32)

    def _numbers(self, name: str) -> Float64:
        """Return a numeric column, float64[n], NaN where a value is missing."""
        import pyarrow

        require_columns(str(self.path), self.names, name)
        try:
            numbers: Float64 = self.table[name].cast(pyarrow.float64()).to_numpy()[self.rows]
        except (pyarrow.ArrowException, ValueError) as error:
            raise InputError(f"{self.path}: column {name!r} is not numeric") from error
        self._check(f"column {name!r}", numbers, ~np.isinf(numbers), "not finite")
        return numbers

    def _values(self, name: str) -> list[Any]:
        column = self.table[name].to_pylist()
        return [column[i] for i in self.rows.tolist()]

    def _check(self, column: str, values: Float64, is_valid: Bools, fault: str) -> None:
        """Refuse the first row that is not valid, by its number in the file, from 1.

        `fault` is a format for the value of that row.
        """
        if not is_valid.all():
            i = int(np.argmin(is_valid))
            reason = fault.format(values[i])
            raise InputError(f"{self.path}: row {self.rows[i] + 1}, {column}: {reason}")


def history_of(log: BanditLog) -> DecisionHistory:
    """Return a log with requests and events, so that policies can decide and learn from it.

    Parameters
    ----------
    log : BanditLog
        A log without prices: cost and latency play no part in what policies decide on it.
    """
    n = len(log)
    ids = [str(i) for i in range(n)]
    events = [
        Event(k, log.name, "model_added", payload={"name": name})
        for k, name in enumerate(log.models, start=1)
    ]
    for i in np.flatnonzero(~np.isnan(log.quality)).tolist():
        seq = len(events) + 1
        outcome = Outcome(
            seq=seq,
            decision_id=ids[i],
            arm=log.models[log.chosen[i]],
            x=log.features[i],
            field="quality",
            value=float(log.quality[i]),
            propensity=float(log.propensity[i]),
            preference=QUALITY_ALONE,
        )
        events.append(Event(seq, log.name, "feedback", outcome, EMBEDDER))
    batch = RequestBatch(
        features=log.features,
        preference=log.preference,
        input_tokens=np.zeros(n),
        input_bound=np.zeros(n),
    )
    models = tuple(Model(name, 0.0, 0.0, price_id=k) for k, name in enumerate(log.models))
    return DecisionHistory(
        log=log,
        requests=LoggedRequests(batch, [(np.arange(n), models)], np.full(n, np.nan)),
        ids=ids,
        policy_identity=PolicyIdentity(
            policy="random",
            params={},
            embedder=EMBEDDER,
            dim=log.features.shape[1],
            tau_cost_usd=1.0,
            tau_latency_ms=1.0,
        ),
        events=events,
    )

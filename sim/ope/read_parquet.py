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
    for name in ("arm", "propensity", "reward"):
        if name not in table.column_names:
            raise InputError(f"{path}: column {name!r} is missing")
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
        self.names = set(table.column_names)

    def log(self, models: Sequence[str]) -> BanditLog:
        """Return the rows as a log over these models."""
        n = len(self.rows)
        propensity = self._numbers("propensity")
        self._check("propensity", propensity, (propensity > 0.0) & (propensity <= 1.0), "(0, 1]")
        position = {model: k for k, model in enumerate(models)}
        chosen = np.array([position[str(arm)] for arm in self._values("arm")])
        action_dist = None
        if any(name.startswith("pmf:") for name in self.names):
            action_dist = self._action_dist([f"pmf:{model}" for model in models])
            differs = np.abs(action_dist[np.arange(n), chosen] - propensity) > 1e-6
            if differs.any():
                raise self._fault(differs, "column 'propensity'", "not that of its pmf")
        reward = self._numbers("reward")
        self._check("reward", reward, ~((reward < 0.0) | (reward > 1.0)), "[0, 1]")
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
            session=number_sessions([None if name is None else str(name) for name in session]),
        )

    def _action_dist(self, names: Sequence[str]) -> Float64:
        """Return the columns of the pmf, float64[n, K]."""
        for name in names:
            if name not in self.names:
                raise InputError(f"{self.path}: column {name!r} is missing")
        pmf = np.column_stack([self._numbers(name) for name in names])
        is_probability = (pmf >= 0.0) & (pmf <= 1.0)
        if not is_probability.all():
            i, k = np.argwhere(~is_probability)[0]
            self._check(names[k], pmf[:, k], np.arange(len(pmf)) != i, "[0, 1]")
        total = pmf.sum(axis=1)
        differs = np.abs(total - 1.0) > 1e-4
        if differs.any():
            first = total[differs][0]
            raise self._fault(differs, "columns 'pmf:*'", f"their sum is {first:g}, not 1")
        return pmf

    def _features(self) -> Float32:
        """Return the columns ``x:<name>`` and an intercept, float32[n, d]."""
        names = [name for name in self.table.column_names if name.startswith("x:")]
        columns = [self._numbers(name) for name in names]
        for name, column in zip(names, columns, strict=True):
            if np.isnan(column).any():
                raise self._fault(np.isnan(column), f"column {name!r}", "missing")
        return np.column_stack([*columns, np.ones(len(self.rows))]).astype(np.float32)

    def _numbers(self, name: str) -> Float64:
        """Return a numeric column, float64[n], NaN where a value is missing."""
        import pyarrow

        try:
            numbers: Float64 = self.table[name].cast(pyarrow.float64()).to_numpy()[self.rows]
        except (pyarrow.ArrowException, ValueError) as error:
            raise InputError(f"{self.path}: column {name!r} is not numeric") from error
        if np.isinf(numbers).any():
            raise self._fault(np.isinf(numbers), f"column {name!r}", "not finite")
        return numbers

    def _values(self, name: str) -> list[Any]:
        column = self.table[name].to_pylist()
        return [column[i] for i in self.rows.tolist()]

    def _check(self, name: str, numbers: Float64, is_valid: Bools, interval: str) -> None:
        if not is_valid.all():
            first = numbers[~is_valid][0]
            raise self._fault(~is_valid, f"column {name!r}", f"{first:g} is not in {interval}")

    def _fault(self, is_faulty: Bools, column: str, fault: str) -> InputError:
        """Return an error about the first faulty row, by its number in the file, from 1."""
        row = int(self.rows[is_faulty][0]) + 1
        return InputError(f"{self.path}: row {row}, {column}: {fault}")


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

"""Bandit logs in files: the Open Bandit Dataset, and a parquet of our own.

The own one has the columns ``arm``, ``propensity`` and ``reward``, and may have ``cost``,
``session``, ``pmf:<arm>`` for every arm, and numeric features ``x:<name>``. Other columns are
tags to select rows by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from banditroute.core.policy_identity import PolicyIdentity
from banditroute.core.pool import Model
from banditroute.decide.columns import RequestBatch
from banditroute.learn.fold import Event
from policies import Outcome
from policies.base import Float32, Float64
from sim.errors import InputError
from sim.ope.bandit_log import BanditLog, sessions
from sim.ope.logged_requests import DecisionHistory, LoggedRequests

if TYPE_CHECKING:
    import pyarrow

_OPEN_BANDIT = {"item_id": "arm", "propensity_score": "propensity", "click": "reward"}
QUALITY_ALONE = (1.0, 0.0, 0.0)
EMBEDDER = "file"


def is_log(path: Path) -> bool:
    """Tell whether a file is a parquet with propensities."""
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
    path : a parquet file.
    tags : only rows with these values in these columns.

    Raises
    ------
    InputError
        Naming the file, and the row (from 1) and column where there is one.
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
    models = sorted(set(map(str, arms)), key=_natural)
    chosen = _selected(path, table, tags or {})
    if not len(chosen):
        raise InputError(f"--tag: no row of {path} is left")
    return _log(path, table, models, chosen)


def _natural(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (1 << 62, name)


def _selected(path: Path, table: pyarrow.Table, tags: Mapping[str, str]) -> np.ndarray:
    kept = np.ones(table.num_rows, dtype=np.bool_)
    for key, value in tags.items():
        if key not in table.column_names:
            raise InputError(f"--tag: {path} has no column {key!r}")
        kept &= np.array([str(one) == value for one in table[key].to_pylist()], dtype=np.bool_)
    return np.flatnonzero(kept)


def _log(path: Path, table: pyarrow.Table, models: Sequence[str], rows: np.ndarray) -> BanditLog:
    n, names = len(rows), table.column_names
    propensity = _numbers(path, table, "propensity", rows)
    bad = ~((propensity > 0.0) & (propensity <= 1.0))
    if bad.any():
        raise InputError(
            f"{path}: row {rows[bad][0] + 1}, column 'propensity': "
            f"{propensity[bad][0]:g} is not in (0, 1]"
        )
    arms = table["arm"].to_pylist()
    column = {model: k for k, model in enumerate(models)}
    chosen = np.array([column[str(arms[i])] for i in rows.tolist()])
    listed = [f"pmf:{model}" for model in models]
    action_dist = None
    if any(name.startswith("pmf:") for name in names):
        for name in listed:
            if name not in names:
                raise InputError(f"{path}: column {name!r} is missing")
        action_dist = np.column_stack([_numbers(path, table, name, rows) for name in listed])
        _check_law(path, rows, action_dist, listed)
        apart = np.abs(action_dist[np.arange(n), chosen] - propensity) > 1e-6
        if apart.any():
            raise InputError(
                f"{path}: row {rows[apart][0] + 1}, column 'propensity': not that of its pmf"
            )
    reward = _numbers(path, table, "reward", rows)
    bad = (reward < 0.0) | (reward > 1.0)
    if bad.any():
        raise InputError(
            f"{path}: row {rows[bad][0] + 1}, column 'reward': {reward[bad][0]:g} is not in [0, 1]"
        )
    cost = _numbers(path, table, "cost", rows) if "cost" in names else np.full(n, np.nan)
    named: list[Any] = table["session"].to_pylist() if "session" in names else []
    return BanditLog(
        name=path.stem,
        models=tuple(models),
        features=_features(path, table, rows),
        chosen=chosen,
        propensity=propensity,
        action_dist=action_dist,
        open=np.ones((n, len(models)), dtype=np.bool_),
        quality=reward,
        cost_usd=cost,
        preference=np.tile(QUALITY_ALONE, (n, 1)),
        tau_cost_usd=np.ones(n),
        session=sessions([_text(named[i]) if named else None for i in rows.tolist()]),
    )


def _check_law(path: Path, rows: np.ndarray, action_dist: Float64, names: Sequence[str]) -> None:
    bad = ~((action_dist >= 0.0) & (action_dist <= 1.0))
    if bad.any():
        i, k = np.argwhere(bad)[0]
        raise InputError(
            f"{path}: row {rows[i] + 1}, column {names[k]!r}: "
            f"{action_dist[i, k]:g} is not in [0, 1]"
        )
    bad = np.abs(action_dist.sum(axis=1) - 1.0) > 1e-4
    if bad.any():
        total = action_dist[bad][0].sum()
        raise InputError(
            f"{path}: row {rows[bad][0] + 1}, columns 'pmf:*': their sum is {total:g}, not 1"
        )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _features(path: Path, table: pyarrow.Table, rows: np.ndarray) -> Float32:
    names = [name for name in table.column_names if name.startswith("x:")]
    columns = [_numbers(path, table, name, rows) for name in names]
    for name, values in zip(names, columns, strict=True):
        if np.isnan(values).any():
            row = int(rows[np.isnan(values)][0]) + 1
            raise InputError(f"{path}: row {row}, column {name!r}: missing")
    return np.column_stack([*columns, np.ones(len(rows))]).astype(np.float32)


def _numbers(path: Path, table: pyarrow.Table, name: str, rows: np.ndarray) -> Float64:
    import pyarrow

    try:
        values = table[name].cast(pyarrow.float64()).to_numpy().astype(np.float64)[rows]
    except (pyarrow.ArrowException, ValueError) as error:
        raise InputError(f"{path}: column {name!r} is not numeric") from error
    if np.isinf(values).any():
        row = int(rows[np.isinf(values)][0]) + 1
        raise InputError(f"{path}: row {row}, column {name!r}: not finite")
    found: Float64 = values
    return found


def history_of(log: BanditLog) -> DecisionHistory:
    """Return what policies need to decide and learn from a log that has no prices.

    Parameters
    ----------
    log : money and latency play no part in what is decided on it.
    """
    n, dim = len(log), log.features.shape[1]
    policy_identity = PolicyIdentity(
        "random", {}, EMBEDDER, dim, tau_cost_usd=1.0, tau_latency_ms=1.0
    )
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
    asks = RequestBatch(
        features=log.features,
        preference=log.preference,
        input_tokens=np.zeros(n),
        input_bound=np.zeros(n),
    )
    models = tuple(Model(name, 0.0, 0.0, price_id=k) for k, name in enumerate(log.models))
    requests = LoggedRequests(asks, [(np.arange(n), models)], np.full(n, np.nan))
    return DecisionHistory(log, requests, ids, policy_identity, events)

"""An evaluation as tables for people and as plain values for programs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from sim.ope.bandit_log import BanditLog
from sim.ope.estimators import ESTIMATORS
from sim.ope.evaluation import Evaluation, LogComparison
from sim.ope.evaluator import HEADLINE, Estimate, PolicyEvaluation
from sim.ope.intervals import LEVEL, Interval
from sim.ope.rejection_replay import Replayed

UNITS = {"cost": "cost, $ per request"}


def show(console: Console, found: Evaluation) -> None:
    """Print what a log says of frozen policies."""
    log, evaluator = found.history.log, found.evaluator
    models = ", ".join(log.models[:6]) + (", .." if len(log.models) > 6 else "")
    console.print(f"{log.name}: {len(log):,} decisions over {len(log.models)} models ({models})")
    for reason, count in log.left_out.items():
        console.print(f"  left out: {count:,} {reason}")
    console.print(f"  learned from the first {found.first:,}, judged on {len(evaluator.judged):,}")
    shares = ", ".join(f"{name} of {evaluator.observed(name):.1%}" for name in evaluator.measures)
    console.print(f"  observed: {shares}; what is missing is weighted for, never counted as zero")
    for note in [*log.notes, *_money(found)]:
        console.print(f"  note: {note}")
    console.print(_diagnostics(found.policies))
    told = {one.label: one.estimates for one in found.policies if one.refusal is None}
    apart = {one.label: one.estimates for one in found.differences}
    for rows, what, sign in ((told, "", ""), (apart, "paired differences in ", "+")):
        for name in evaluator.measures if rows else ():
            of = {label: by[name] for label, by in rows.items() if name in by}
            title = f"{what}{UNITS.get(name, name)}, by {HEADLINE}, {LEVEL:.0%} intervals"
            console.print(_table(title, of, sign))
        if rows:
            of = {label: by["quality"] for label, by in rows.items()}
            console.print(_others(f"{what}quality by all estimators, {LEVEL:.0%}", of, sign))
    if found.zeros:
        console.print(_zeros(found))
    if found.comparison is not None:
        console.print(_comparison(found.comparison))
    for one in found.policies:
        if one.refusal is not None:
            console.print(f"refused: {one.label}: {one.refusal}", style="bold", highlight=False)
        for warning in one.warnings:
            console.print(f"warning: {one.label}: {warning}", highlight=False)


def _money(found: Evaluation) -> list[str]:
    priced = found.history.requests.priced
    if not priced:
        return []
    return [
        f"{priced:,} decisions were made under a budget that priced money; the policies are judged "
        "as if it were free (--budget-rate replays a policy with a budget)"
    ]


def _diagnostics(verdicts: Sequence[PolicyEvaluation]) -> Table:
    table = Table(title="what the log can say", title_justify="left")
    for heading in ("policy", "effective rows", "of the rows", "largest weight's share"):
        table.add_column(heading)
    for heading in ("mean weight", "mass on models of probability 0", "verdict"):
        table.add_column(heading)
    for one in verdicts:
        support = one.support
        if support is None:
            verdict = "refused" if one.refusal else "as it was"
            table.add_row(one.label, *[""] * 5, verdict)
            continue
        table.add_row(
            one.label,
            f"{support.ess:,.0f}",
            f"{support.ess / support.rows:.1%}",
            f"{support.largest:.1%}",
            f"{support.mean_weight:.3f} ± {support.mean_weight_error:.3f}",
            "not known" if support.outside is None else f"{support.outside:.2%}",
            "refused" if one.refusal else "warnings" if one.warnings else "estimated",
        )
    return table


def _table(title: str, rows: Mapping[str, Mapping[str, Estimate]], sign: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in ("policy", "estimate", "normal", "bootstrap by session", "guaranteed"):
        table.add_column(heading)
    for label, estimates in rows.items():
        one = estimates[HEADLINE]
        form = sign + _form(one.normal)
        cells = [_range(i, form) for i in (one.normal, one.bootstrap)]
        sure = "says nothing" if one.guaranteed is None else _range(one.guaranteed, form)
        table.add_row(label, f"{one.normal.mean:{form}}", *cells, sure)
    return table


def _others(title: str, rows: Mapping[str, Mapping[str, Estimate]], sign: str) -> Table:
    table = Table("policy", *ESTIMATORS, title=title, title_justify="left")
    for label, estimates in rows.items():
        cells = {how: _around(one.normal, sign) for how, one in estimates.items()}
        # The direct method is as wrong as its model, and no interval would show it.
        cells["dm"] = f"{estimates['dm'].normal.mean:{sign}{_form(estimates[HEADLINE].normal)}}"
        table.add_row(label, *cells.values())
    return table


def _form(interval: Interval) -> str:
    """Return the format that shows two digits of the uncertainty, and four decimals at least."""
    wide = interval.half_width
    digits = 1 - math.floor(math.log10(wide)) if 0.0 < wide < math.inf else 0
    return f".{min(max(digits, 4), 8)}f"


def _range(interval: Interval, form: str) -> str:
    return f"{interval.low:{form}} to {interval.high:{form}}"


def _around(interval: Interval, sign: str = "") -> str:
    form = _form(interval)
    return f"{interval.mean:{sign}{form}} ± {interval.half_width:{form}}"


def _zeros(found: Evaluation) -> Table:
    title = f"the zero router, which does not look at the prompt, at the same cost ({LEVEL:.0%})"
    table = Table(title=title, title_justify="left")
    for heading in ("policy", "zero router", "its quality", "policy - zero router"):
        table.add_column(heading)
    for one in found.zeros:
        quality, apart = _around(one.quality), _around(one.difference, "+")
        table.add_row(one.label, one.mix, quality, apart)
    return table


def _comparison(found: LogComparison) -> Table:
    title = f"snips less the mean quality of {found.label}, {LEVEL:.0%} of both errors"
    table = Table("policy", "quality", title=title, title_justify="left")
    table.add_row(f"mean of {found.label}", _around(found.mean))
    for label, apart in found.differences.items():
        table.add_row(f"{label} - that", _around(apart, "+"))
    return table


def show_replayed(console: Console, replayed: Sequence[Replayed]) -> None:
    """Print what sequence replay says of policies that learn or hold a budget."""
    console.print(
        "Policies that learn or spend while they are judged: what they do depends on what they did "
        "before, so only sequence replay can judge them; rows are accepted as if they had chosen."
    )
    table = Table(title=f"sequence replay, {LEVEL:.0%} intervals", title_justify="left")
    for heading in ("policy", "accepted", "quality", UNITS["cost"], "utility"):
        table.add_column(heading)
    for one in replayed:
        cells = [
            _around(one.estimates[name]) if name in one.estimates else "-"
            for name in ("quality", "cost", "utility")
        ]
        table.add_row(one.label, f"{len(one.rows):,} of {one.judged:,}", *cells)
    console.print(table)
    for one in replayed:
        if one.refusal is not None:
            console.print(f"refused: {one.label}: {one.refusal}", style="bold", highlight=False)


def show_direct(console: Console, log: BanditLog, found: Mapping[str, Mapping[str, float]]) -> None:
    """Print what the direct method says of policies on a log without propensities."""
    for note in log.notes:
        console.print(f"note: {note}", highlight=False)
    console.print(
        "The log has no propensities: nothing but the direct method can be had from it. It is as "
        "wrong as its model of the rewards, and no interval would show that.",
        highlight=False,
    )
    table = Table("policy", "quality", UNITS["cost"], title_justify="left")
    table.title = "by the direct method"
    for label, by in found.items():
        cells = [f"{by[name]:.4g}" if name in by else "-" for name in ("quality", "cost")]
        table.add_row(label, *cells)
    console.print(table)


def as_json(found: Evaluation) -> dict[str, Any]:
    """Return an evaluation as plain values; what is not finite is None, as JSON has no word."""
    log, evaluator = found.history.log, found.evaluator
    report: dict[str, Any] = {
        "log": log.name,
        "models": list(log.models),
        "decisions": len(log),
        "learned": found.first,
        "judged": len(evaluator.judged),
        "left_out": dict(log.left_out),
        "notes": [*log.notes, *_money(found)],
        "observed": {name: evaluator.observed(name) for name in evaluator.measures},
        "policies": [
            {
                "label": one.label,
                "refusal": one.refusal,
                "warnings": list(one.warnings),
                "support": None if one.support is None else asdict(one.support),
                "estimates": _plain(one.estimates),
            }
            for one in found.policies
        ],
        "differences": [
            {"label": one.label, "estimates": _plain(one.estimates)} for one in found.differences
        ],
        "zero_router": [asdict(one) for one in found.zeros],
        "comparison": None if found.comparison is None else asdict(found.comparison),
    }
    return {name: _finite(value) for name, value in report.items()}


def replayed_json(replayed: Sequence[Replayed]) -> list[dict[str, Any]]:
    """Return sequence replays as plain values."""
    plain: list[dict[str, Any]] = [
        {
            "label": one.label,
            "accepted": len(one.rows),
            "judged": one.judged,
            "outside": one.outside,
            "refusal": one.refusal,
            "estimates": {name: asdict(interval) for name, interval in one.estimates.items()},
        }
        for one in replayed
    ]
    return [_finite(one) for one in plain]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(estimates: Mapping[str, Mapping[str, Estimate]]) -> dict[str, Any]:
    return {
        measure: {how: asdict(one) for how, one in by.items()} for measure, by in estimates.items()
    }

"""The results of an evaluation: tables to read, and plain values for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.table import Table

from sim.ope.bandit_log import BanditLog
from sim.ope.estimators import ESTIMATORS
from sim.ope.evaluation import Evaluation, LogComparison
from sim.ope.evaluator import HEADLINE, Estimate, PolicyEvaluation
from sim.ope.intervals import LEVEL, Interval
from sim.ope.rejection_replay import Replayed

UNITS = {"cost": "cost, $ per request"}

ByLabel = Mapping[str, Mapping[str, Estimate]]
"""Estimates of one measure, by label and estimator."""


def show(console: Console, evaluation: Evaluation) -> None:
    """Print what a log says about frozen policies.

    Parameters
    ----------
    console : rich.console.Console
        Where to print.
    evaluation : Evaluation
        What to print.
    """
    _show_log(console, evaluation)
    console.print(_diagnostics(evaluation.policies))
    policies = {each.label: each.estimates for each in evaluation.policies if not each.refusal}
    differences = {each.label: each.estimates for each in evaluation.differences}
    for by_label, what, sign in ((policies, "", ""), (differences, "paired differences in ", "+")):
        if not by_label:
            continue
        for name in evaluation.evaluator.measures:
            rows = {label: by[name] for label, by in by_label.items() if name in by}
            title = f"{what}{UNITS.get(name, name)}, by {HEADLINE}, {LEVEL:.0%} intervals"
            console.print(_by_interval(title, rows, sign))
        rows = {label: by["quality"] for label, by in by_label.items()}
        title = f"{what}quality by all estimators, {LEVEL:.0%}"
        console.print(_by_estimator(title, rows, sign))
    if evaluation.zero_routers:
        console.print(_zero_routers(evaluation))
    if evaluation.comparison is not None:
        console.print(_comparison(evaluation.comparison))
    for policy in evaluation.policies:
        if policy.refusal is not None:
            _show_refusal(console, policy.label, policy.refusal)
        for warning in policy.warnings:
            console.print(f"warning: {policy.label}: {warning}", highlight=False)


def _show_log(console: Console, evaluation: Evaluation) -> None:
    log, evaluator = evaluation.history.log, evaluation.evaluator
    models = ", ".join(log.models[:6]) + (", .." if len(log.models) > 6 else "")
    console.print(f"{log.name}: {len(log):,} decisions over {len(log.models)} models ({models})")
    for reason, count in log.left_out.items():
        console.print(f"  left out: {count:,} {reason}")
    first, evaluated = evaluation.first, len(evaluator.evaluated)
    console.print(f"  learned from the first {first:,}, evaluated on {evaluated:,}")
    shares = [f"{name} of {evaluator.observed_share(name):.1%}" for name in evaluator.measures]
    console.print(
        f"  observed: {', '.join(shares)}; missing outcomes are weighted for, never counted as zero"
    )
    for note in _notes(evaluation):
        console.print(f"  note: {note}")


def _show_refusal(console: Console, label: str, refusal: str) -> None:
    console.print(f"refused: {label}: {refusal}", style="bold", highlight=False)


def _notes(evaluation: Evaluation) -> list[str]:
    notes = [*evaluation.history.log.notes]
    if priced := evaluation.history.requests.priced:
        notes.append(
            f"{priced:,} decisions were made under a budget that priced money; the policies are "
            "evaluated as if there were no budget (--budget-rate replays a policy with one)"
        )
    return notes


def _table(title: str, *headings: str) -> Table:
    return Table(*headings, title=title, title_justify="left")


def _diagnostics(policies: Sequence[PolicyEvaluation]) -> Table:
    table = _table(
        "what the log can say",
        "policy",
        "effective rows",
        "of the rows",
        "largest weight's share",
        "mean weight",
        "mass on models of probability 0",
        "result",
    )
    for policy in policies:
        support = policy.support
        if support is None:
            table.add_row(policy.label, *[""] * 5, "refused" if policy.refusal else "as it was")
            continue
        table.add_row(
            policy.label,
            f"{support.ess:,.0f}",
            f"{support.ess / support.rows:.1%}",
            f"{support.largest:.1%}",
            f"{support.mean_weight:.3f} ± {support.mean_weight_error:.3f}",
            "not known" if support.outside is None else f"{support.outside:.2%}",
            "refused" if policy.refusal else "warnings" if policy.warnings else "estimated",
        )
    return table


def _by_interval(title: str, rows: ByLabel, sign: str) -> Table:
    table = _table(title, "policy", "estimate", "normal", "bootstrap by session", "guaranteed")
    for label, estimates in rows.items():
        estimate = estimates[HEADLINE]
        form = sign + _form(estimate.normal)
        guaranteed = estimate.guaranteed
        table.add_row(
            label,
            f"{estimate.normal.mean:{form}}",
            _range(estimate.normal, form),
            _range(estimate.bootstrap, form),
            "says nothing" if guaranteed is None else _range(guaranteed, form),
        )
    return table


def _by_estimator(title: str, rows: ByLabel, sign: str) -> Table:
    table = _table(title, "policy", *ESTIMATORS)
    for label, estimates in rows.items():
        cells = {name: _around(each.normal, sign) for name, each in estimates.items()}
        # An interval would not show the bias of the direct method.
        form = sign + _form(estimates[HEADLINE].normal)
        cells["dm"] = f"{estimates['dm'].normal.mean:{form}}"
        table.add_row(label, *cells.values())
    return table


def _form(interval: Interval) -> str:
    """Return the format that shows two digits of the uncertainty, and four decimals at least."""
    width = interval.half_width
    digits = 1 - math.floor(math.log10(width)) if 0.0 < width < math.inf else 0
    return f".{min(max(digits, 4), 8)}f"


def _range(interval: Interval, form: str) -> str:
    return f"{interval.low:{form}} to {interval.high:{form}}"


def _around(interval: Interval, sign: str = "") -> str:
    form = _form(interval)
    return f"{interval.mean:{sign}{form}} ± {interval.half_width:{form}}"


def _zero_routers(evaluation: Evaluation) -> Table:
    title = f"the zero router, which does not look at the prompt, at the same cost ({LEVEL:.0%})"
    table = _table(title, "policy", "zero router", "its quality", "policy - zero router")
    for zero in evaluation.zero_routers:
        table.add_row(zero.label, zero.mix, _around(zero.quality), _around(zero.difference, "+"))
    return table


def _comparison(comparison: LogComparison) -> Table:
    title = f"snips less the mean quality of {comparison.label}, {LEVEL:.0%} of both errors"
    table = _table(title, "policy", "quality")
    table.add_row(f"mean of {comparison.label}", _around(comparison.mean))
    for label, difference in comparison.differences.items():
        table.add_row(f"{label} - that", _around(difference, "+"))
    return table


def show_replayed(console: Console, replayed: Sequence[Replayed]) -> None:
    """Print the rejection replays of policies that learn or spend a budget.

    Parameters
    ----------
    console : rich.console.Console
        Where to print.
    replayed : sequence of Replayed
        What to print.
    """
    console.print(
        "A policy that learns or spends depends on its own earlier choices, so only rejection "
        "replay can evaluate it: rows are accepted as if the policy itself had chosen."
    )
    title = f"rejection replay, {LEVEL:.0%} intervals"
    table = _table(title, "policy", "accepted", "quality", UNITS["cost"], "utility")
    for policy in replayed:
        cells = [
            _around(policy.estimates[name]) if name in policy.estimates else "-"
            for name in ("quality", "cost", "utility")
        ]
        table.add_row(policy.label, f"{len(policy.rows):,} of {policy.evaluated:,}", *cells)
    console.print(table)
    for policy in replayed:
        if policy.refusal is not None:
            _show_refusal(console, policy.label, policy.refusal)


def show_direct(
    console: Console, log: BanditLog, estimates: Mapping[str, Mapping[str, float]]
) -> None:
    """Print the estimates of the direct method for a log without propensities.

    Parameters
    ----------
    console : rich.console.Console
        Where to print.
    log : BanditLog
        The log.
    estimates : mapping
        By policy and measure; see `sim.ope.direct_method.estimates`.
    """
    for note in log.notes:
        console.print(f"note: {note}", highlight=False)
    console.print(
        "The log has no propensities, so only the direct method is possible. It is as wrong as its "
        "model of the rewards, and no interval would show that.",
        highlight=False,
    )
    table = _table("by the direct method", "policy", "quality", UNITS["cost"])
    for label, by in estimates.items():
        cells = [f"{by[name]:.4g}" if name in by else "-" for name in ("quality", "cost")]
        table.add_row(label, *cells)
    console.print(table)


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation as plain values; infinite ones and NaN are None, for JSON has neither.

    Parameters
    ----------
    evaluation : Evaluation
        The evaluation.
    """
    log, evaluator = evaluation.history.log, evaluation.evaluator
    shown = ("label", "refusal", "warnings", "support", "estimates")
    report = {
        "log": log.name,
        "models": log.models,
        "decisions": len(log),
        "learned": evaluation.first,
        "judged": len(evaluator.evaluated),
        "left_out": dict(log.left_out),
        "notes": _notes(evaluation),
        "observed": {name: evaluator.observed_share(name) for name in evaluator.measures},
        "policies": [{name: getattr(each, name) for name in shown} for each in evaluation.policies],
        "differences": evaluation.differences,
        "zero_router": evaluation.zero_routers,
        "comparison": evaluation.comparison,
    }
    plain: dict[str, Any] = to_jsonable_python(report, inf_nan_mode="null")
    return plain


def replayed_json(replayed: Sequence[Replayed]) -> list[dict[str, Any]]:
    """Return rejection replays as plain values; see `as_json`.

    Parameters
    ----------
    replayed : sequence of Replayed
        The replays.
    """
    reports = [
        {
            "label": policy.label,
            "accepted": len(policy.rows),
            "judged": policy.evaluated,
            "outside": policy.outside,
            "refusal": policy.refusal,
            "estimates": policy.estimates,
        }
        for policy in replayed
    ]
    plain: list[dict[str, Any]] = to_jsonable_python(reports, inf_nan_mode="null")
    return plain

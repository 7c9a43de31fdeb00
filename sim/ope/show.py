"""An evaluation as tables for people and as plain values for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from sim.ope.estimators import ESTIMATORS
from sim.ope.evaluation import Evaluation
from sim.ope.intervals import LEVEL, Interval
from sim.ope.judge import HEADLINE, Estimate, Verdict
from sim.ope.sequence import Replayed

_FORMS = {"quality": ".4f", "cost": ".3g", "utility": ".4f"}


def show(console: Console, found: Evaluation) -> None:
    """Print what a log says of frozen policies."""
    log, judge = found.trail.log, found.judge
    models = ", ".join(log.models[:6]) + (", .." if len(log.models) > 6 else "")
    console.print(f"{log.name}: {len(log):,} decisions over {len(log.models)} models ({models})")
    for reason, count in log.left_out.items():
        console.print(f"  left out: {count:,} {reason}")
    console.print(f"  learned from the first {found.first:,}, judged on {len(judge.judged):,}")
    shares = ", ".join(f"{name} of {judge.observed(name):.1%}" for name in judge.measures)
    console.print(f"  observed: {shares}; what is missing is weighted for, never counted as zero")
    for note in [*log.notes, *_money(found)]:
        console.print(f"  note: {note}")
    console.print(_diagnostics(found.verdicts))
    told = [one for one in found.verdicts if one.refusal is None]
    for name in judge.measures:
        estimates = {one.label: one.estimates[name] for one in told}
        console.print(_table(f"{name}, {LEVEL:.0%} intervals", estimates, _FORMS[name]))
    for name in judge.measures if found.differences else ():
        apart = {one.label: one.estimates[name] for one in found.differences}
        title = f"paired differences in {name}, {LEVEL:.0%} intervals"
        console.print(_table(title, apart, "+" + _FORMS[name]))
    if found.zeros:
        console.print(_zeros(found))
    for one in found.verdicts:
        if one.refusal is not None:
            console.print(f"refused: {one.label}: {one.refusal}", style="bold", highlight=False)
        for warning in one.warnings:
            console.print(f"warning: {one.label}: {warning}", highlight=False)


def _money(found: Evaluation) -> list[str]:
    priced = found.trail.requests.priced
    if not priced:
        return []
    return [
        f"{priced:,} decisions were made under a budget that priced money; the policies are judged "
        "as if it were free (--budget-rate replays a policy with a budget)"
    ]


def _diagnostics(verdicts: Sequence[Verdict]) -> Table:
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


def _table(title: str, rows: Mapping[str, Mapping[str, Estimate]], form: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("policy")
    for heading in (HEADLINE, "normal", "bootstrap", "guaranteed"):
        table.add_column(heading, no_wrap=True)
    others = [name for name in ESTIMATORS if name != HEADLINE]
    for heading in others:
        table.add_column(heading)
    for label, estimates in rows.items():
        main = estimates[HEADLINE]
        table.add_row(
            label,
            f"{main.normal.mean:{form}}",
            _range(main.normal, form),
            _range(main.bootstrap, form),
            "" if main.guaranteed is None else _range(main.guaranteed, form),
            *(_around(estimates[name].normal, form) for name in others),
        )
    return table


def _range(interval: Interval, form: str) -> str:
    return f"{interval.low:{form}} to {interval.high:{form}}"


def _around(interval: Interval, form: str) -> str:
    return f"{interval.mean:{form}} ± {interval.half_width:{form.lstrip('+')}}"


def _zeros(found: Evaluation) -> Table:
    title = f"the zero router, which does not look at the prompt, at the same cost ({LEVEL:.0%})"
    table = Table(title=title, title_justify="left")
    for heading in ("policy", "zero router", "its quality", "policy - zero router"):
        table.add_column(heading)
    for one in found.zeros:
        quality, apart = _around(one.quality, ".4f"), _around(one.difference, "+.4f")
        table.add_row(one.label, one.mix, quality, apart)
    return table


def show_replayed(console: Console, replayed: Sequence[Replayed]) -> None:
    """Print what sequence replay says of policies that learn or hold a budget."""
    console.print(
        "Policies that learn or spend while they are judged: what they do depends on what they did "
        "before, so only sequence replay can judge them; rows are accepted as if they had chosen."
    )
    table = Table(title=f"sequence replay, {LEVEL:.0%} intervals", title_justify="left")
    for heading in ("policy", "accepted", "quality", "cost", "utility"):
        table.add_column(heading)
    for one in replayed:
        cells = [
            _around(one.estimates[name], form) if name in one.estimates else "-"
            for name, form in _FORMS.items()
        ]
        table.add_row(one.label, f"{len(one.rows):,} of {one.judged:,}", *cells)
    console.print(table)
    for one in replayed:
        if one.refusal is not None:
            console.print(f"refused: {one.label}: {one.refusal}", style="bold", highlight=False)


def as_json(found: Evaluation) -> dict[str, Any]:
    """Return an evaluation as plain values."""
    log, judge = found.trail.log, found.judge
    return {
        "log": log.name,
        "models": list(log.models),
        "decisions": len(log),
        "learned": found.first,
        "judged": len(judge.judged),
        "left_out": dict(log.left_out),
        "notes": [*log.notes, *_money(found)],
        "observed": {name: judge.observed(name) for name in judge.measures},
        "policies": [
            {
                "label": one.label,
                "refusal": one.refusal,
                "warnings": list(one.warnings),
                "support": None if one.support is None else asdict(one.support),
                "estimates": _plain(one.estimates),
            }
            for one in found.verdicts
        ],
        "differences": [
            {"label": one.label, "estimates": _plain(one.estimates)} for one in found.differences
        ],
        "zero_router": [asdict(one) for one in found.zeros],
    }


def replayed_json(replayed: Sequence[Replayed]) -> list[dict[str, Any]]:
    """Return sequence replays as plain values."""
    return [
        {
            "label": one.label,
            "accepted": len(one.rows),
            "judged": one.judged,
            "refusal": one.refusal,
            "estimates": {name: asdict(interval) for name, interval in one.estimates.items()},
        }
        for one in replayed
    ]


def _plain(estimates: Mapping[str, Mapping[str, Estimate]]) -> dict[str, Any]:
    return {
        measure: {how: asdict(one) for how, one in by.items()} for measure, by in estimates.items()
    }

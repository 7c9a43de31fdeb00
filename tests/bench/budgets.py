"""Routing policies under a budget rate: the share of what supervision gains that they capture.

As `weights.py`, with quality alone in the preference and a rate of US dollars per request to pace
to. The captured gain is (policy - zero) / (supervised - zero), zero router and supervised limit
both at the rate; where supervision itself gains next to nothing the difference is printed. MABWiser
cannot pace: it gets, per rate, the best mix in hindsight of its runs under several prices.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from report import show
from weights import (
    Ledger,
    Result,
    Task,
    cell,
    contenders,
    parser,
    work,
)

from sim.measure.baselines import References
from sim.measure.scores import LEAST_GAIN, captured_gain

RATES = {
    "paretobandit_val": (2.92e-5, 8.26e-5, 2.34e-4, 6.61e-4, 1.87e-3, 5.29e-3, 1.50e-2),
    "llmrouter_train": (4.02e-5, 5.80e-5, 8.37e-5, 1.21e-4, 1.74e-4),
    "routellm_mmlu": (5.34e-5, 9.98e-5, 1.86e-4, 3.48e-4, 6.50e-4),
}
PRICES = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Of MABWiser's runs, in quality units per tau; as weights of cost, p / (1 + p)."""
MIXED_ORDERS = 3
LIMIT = "supervised"
BESIDE = ("best single", "oracle")


def mix(ledger: Ledger, task: Task) -> Result | None:
    """Return the best mix of MABWiser's runs that spends no more than the rate; None: none does.

    The hull of their points is the zero router's, with runs in the place of models.
    """
    runs = [ledger.results[one] for one in priced(task.dataset, task.order)]
    costs = np.array([run.cost for run in runs])
    limit = ledger.results[Task(task.dataset, LIMIT, task.order, rate=task.rate)]
    assert task.rate is not None
    if costs.min() > task.rate:
        return None
    points = References.of(
        [str(price) for price in PRICES], np.array([[run.quality for run in runs]]), costs[None]
    )
    zero_router = points.zero_router()
    return replace(
        limit,
        quality=zero_router.quality_at(task.rate),
        cost=min(task.rate, float(zero_router.corners[-1, 0])),
    )


def priced(dataset: str, order: int) -> list[Task]:
    """Return MABWiser's runs under each of the prices."""
    return [Task(dataset, "mabwiser", order, p / (1.0 + p)) for p in PRICES]


def main() -> None:
    """Run what is missing, mix MABWiser's runs and print a table for each dataset."""
    given = parser(__doc__).parse_args()
    ledger = Ledger(given.json)
    names = contenders(given)
    orders = {
        name: range(min(MIXED_ORDERS, given.orders) if name == names[-1] else given.orders)
        for name in [*names, LIMIT, *BESIDE]
    }

    def tasks(dataset: str, name: str, rate: float) -> list[Task]:
        return [Task(dataset, name, order, rate=rate) for order in orders[name]]

    todo = []
    for dataset in given.dataset:
        for order in orders[names[-1]]:
            todo += priced(dataset, order)
        for name in [*names[:-1], LIMIT, *BESIDE]:
            for rate in RATES[dataset]:
                todo += tasks(dataset, name, rate)
    work(todo, ledger, given)
    for dataset in given.dataset:
        rates = RATES[dataset]
        for rate in rates:
            for task in tasks(dataset, names[-1], rate):
                found = mix(ledger, task)
                if found is not None:
                    ledger.results[task] = found
        limits = [ledger.gains(tasks(dataset, LIMIT, rate)) for rate in rates]
        rows, spent = [], []
        for name in names:
            cells, captured, used = [], [], []
            for rate, limit in zip(rates, limits, strict=True):
                mine = tasks(dataset, name, rate)
                gain = ledger.gains(mine)
                if np.isnan(gain).any():
                    cells.append("none fits")
                    used.append("")
                    continue
                # A contender of fewer orders is held to the limit of the same ones.
                share = captured_gain(gain, limit[: len(gain)]).mean
                if share is not None:
                    captured.append(share)
                shown = "-" if share is None else f"{share:.2f}"
                cells.append(f"{shown}   {cell(gain)}")
                used.append(f"{np.mean([ledger.results[one].cost for one in mine]) / rate:.3f}")
            average = f"{np.mean(captured):.3f}" if captured else "-"
            rows.append((name, *cells, average))
            spent.append((name, *used))
        for name in (LIMIT, *BESIDE):
            values = [ledger.gains(tasks(dataset, name, rate)) for rate in rates]
            rows.append((name, *map(cell, values), ""))
        columns = [f"{rate:.2e}" for rate in rates]
        show(
            f"{dataset}: captured gain, and quality minus the zero router's x 1000, at each rate",
            ("contender", *columns, "mean captured"),
            rows,
            f"{given.orders} orders ({MIXED_ORDERS} at most of {names[-1]}, mixed in hindsight); - "
            f"where supervision gains less than {LEAST_GAIN} or 2 standard errors",
        )
        show(f"{dataset}: mean cost / rate", ("contender", *columns), spent)


if __name__ == "__main__":
    main()

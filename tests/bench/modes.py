"""What prices a budget's money: the three modes and two published ways beside each other.

As `budgets.py`, on one dataset, at rates from 1.3 times what the cheapest model costs to 0.8 times
what the dearest does. The scored half has a hard cap of the rate times its requests; a request that
it has no money for scores 0. ParetoBandit knows no cap: where it overspends it is compared at what
it spent, both as quality above the zero router's there.
"""

from __future__ import annotations

import numpy as np
from report import show
from weights import PARETO, SLACK, Ledger, Task, cell, mean_and_error, parser, stage, work

DATASET = "paretobandit_val"
CONTENDERS = ("thompson", "thompson+zcl", "thompson+pacer", "pilot+zcl")
LIMITS = ("supervised", "oracle")
BINDS, USED = 1.1, 0.97


def main() -> None:
    """Run what is missing; print three tables and a verdict for each aim."""
    made = parser(__doc__)
    made.add_argument("--rates", type=int, default=7, help="how many, log-spaced")
    made.set_defaults(policy=list(CONTENDERS), dataset=[DATASET])
    given = made.parse_args()
    (dataset,) = given.dataset
    data = stage(given.data, dataset, pareto=False, cache=given.cache).dataset
    mean, requests = data.cost_usd.mean(axis=0), len(data) - round(0.5 * len(data))
    rates = [float(r) for r in np.geomspace(1.3 * mean.min(), 0.8 * mean.max(), given.rates)]
    ledger = Ledger(given.json)
    pareto, ours = PARETO["ours"], given.policy[0]
    names = [*given.policy, pareto]

    def tasks(name: str, rate: float | None) -> list[Task]:
        return [Task(dataset, name, order, rate=rate) for order in range(given.orders)]

    def results(name: str, rate: float | None, field: str) -> np.ndarray:
        return np.array([getattr(ledger.results[one], field) for one in tasks(name, rate)])

    todo = [t for name in [*names, *LIMITS] for rate in rates for t in tasks(name, rate)]
    work([*todo, *tasks(ours, None)], ledger, given)
    gains = {n: [ledger.gains(tasks(n, rate)) for rate in rates] for n in [*names, *LIMITS]}
    columns = [f"{rate:.2e}" for rate in rates]
    rows = [
        (name, *(f"{results(name, rate, 'quality').mean():.4f}" for rate in rates))
        for name in gains
    ]
    zero = [f"{results(ours, rate, 'zero').mean():.4f}" for rate in rates]
    show(f"{dataset}: quality", ("contender", *columns), [*rows, ("zero router", *zero)])
    show(
        f"{dataset}: quality minus the zero router's, x 1000",
        ("contender", *columns),
        [(name, *map(cell, row)) for name, row in gains.items()],
        f"mean ± standard error over {given.orders} orders",
    )
    used = {n: [results(n, rate, "cost") / rate for rate in rates] for n in names}
    show(
        f"{dataset}: spent / budget, mean (largest), and refused",
        ("contender", *columns),
        [
            (
                name,
                *(
                    f"{row.mean():.3f} ({row.max():.3f}) {results(name, rate, 'refused').mean():.1%}"
                    for row, rate in zip(used[name], rates, strict=True)
                ),
            )
            for name in names
        ],
    )
    paired = [a - b for a, b in zip(gains[ours], gains[pareto], strict=True)]
    others = [name for name in names if name != ours]
    show(
        f"{dataset}: {ours} minus each other within an order, x 1000",
        ("contender", *columns),
        [
            (name, *(cell(a - b) for a, b in zip(gains[ours], gains[name], strict=True)))
            for name in others
        ],
    )
    if given.orders < 2:
        return
    above = [m - 2 * e > 0.0 for m, e in map(mean_and_error, paired)]
    below = [m + 2 * e < 0.0 for m, e in map(mean_and_error, paired)]
    short = []
    free = results(ours, None, "cost").mean()
    for rate, row in zip(rates, used[ours], strict=True):
        room = (1.0 - row) * rate * requests < results(ours, rate, "dearest")
        if free > BINDS * rate and row.mean() < USED and not room.all():
            short.append(f"{rate:.2e}")
    under = [
        column
        for column, row in zip(columns, gains[ours], strict=True)
        if mean_and_error(row)[0] + 2.0 * mean_and_error(row)[1] < -SLACK
    ]
    over = [
        f"{n} at {c}"
        for n in given.policy
        for c, r in zip(columns, used[n], strict=True)
        if r.max() > 1.0
    ]
    for text, miss, note in (
        ("no mode above the cap", bool(over), ", ".join(over)),
        (
            f"a binding budget used to {USED}, or short by less than one reservation",
            bool(short),
            ", ".join(short),
        ),
        (
            f"{ours} above {pareto} by 2 standard errors at five rates or more",
            sum(above) < 5,
            f"{sum(above)} of {len(rates)}",
        ),
        (f"{ours} nowhere below it by 2 standard errors", any(below), ""),
        (
            f"{ours} never below the zero router by more than {SLACK} and 2 standard errors",
            bool(under),
            ", ".join(under),
        ),
    ):
        print(f"{'MISS' if miss else 'pass'}: {text}{f': {note}' if note else ''}")


if __name__ == "__main__":
    main()

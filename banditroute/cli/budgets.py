"""The commands about budgets; amounts are US dollars."""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from banditroute.cli.console import DEFAULT_URL, PoolName, Url, call, fail

budgets_app = typer.Typer(help="The budgets of a running daemon.", no_args_is_help=True)

Cap = Annotated[float, typer.Option("--cap", help="US dollars of a window.")]
Ceiling = Annotated[
    float | None, typer.Option("--request-ceiling", help="The most a request may reserve.")
]
Pacing = Annotated[str | None, typer.Option(help="history (default), zcl, pacer or none.")]
Requests = Annotated[
    int | None, typer.Option("--expected-requests", help="Requests of a window, where known.")
]
Rate = Annotated[float | None, typer.Option("--rate", help="US dollars per request to pace to.")]
Floor = Annotated[
    float | None, typer.Option(help="Mean quality that history meets at the least cost.")
]


@budgets_app.command("create")
def create(
    name: str,
    cap: Cap,
    window: Annotated[str, typer.Option(help="total, hour, day, month (UTC), rolling.")] = "total",
    rolling_s: Annotated[int | None, typer.Option(help="Seconds of a rolling window.")] = None,
    tag: Annotated[
        str | None, typer.Option(help="KEY=VALUE: hold only requests with this tag.")
    ] = None,
    request_ceiling: Ceiling = None,
    pacing: Pacing = None,
    expected_requests: Requests = None,
    rate: Rate = None,
    quality_floor: Floor = None,
    pool: PoolName = "default",
    url: Url = DEFAULT_URL,
) -> None:
    """Make a budget; it holds from the next decision on."""
    key, value = _tag(tag)
    terms = _terms(cap, request_ceiling, pacing, expected_requests, rate, quality_floor)
    terms |= {"window": window, "rolling_s": rolling_s, "tag": key, "value": value}
    _print([call(url, "add_budget", name, pool=pool, **terms)])


@budgets_app.command("change")
def change(
    name: str,
    cap: Annotated[float | None, typer.Option("--cap", help="US dollars of a window.")] = None,
    request_ceiling: Ceiling = None,
    pacing: Pacing = None,
    expected_requests: Requests = None,
    rate: Rate = None,
    quality_floor: Floor = None,
    pool: PoolName = "default",
    url: Url = DEFAULT_URL,
) -> None:
    """Change a budget; a cap below what is spent and reserved is refused."""
    fields = _terms(cap, request_ceiling, pacing, expected_requests, rate, quality_floor)
    if not fields:
        fail("nothing to change; see --help")
    _print([call(url, "change_budget", name, pool=pool, **fields)])


@budgets_app.command("topup")
def topup(
    name: str,
    usd: Annotated[float, typer.Option(help="US dollars to add to the cap.")],
    pool: PoolName = "default",
    url: Url = DEFAULT_URL,
) -> None:
    """Add to the cap of a budget."""
    _finite(usd=usd)
    _print([call(url, "change_budget", name, pool=pool, top_up_usd=usd)])


@budgets_app.command("list")
def list_all(pool: PoolName = "default", url: Url = DEFAULT_URL) -> None:
    """List the budgets of a pool with what is spent of them."""
    _print(call(url, "budgets", pool=pool))


@budgets_app.command("show")
def show(name: str, pool: PoolName = "default", url: Url = DEFAULT_URL) -> None:
    """Show a budget: every number is a sum over the rows of the ledger."""
    for key, value in call(url, "budget", name, pool=pool).items():
        if value is not None:
            shown = f"{value:.9f}" if key.endswith("_usd") else value
            typer.echo(f"{key:20} {shown}")


@budgets_app.command("delete")
def delete(name: str, pool: PoolName = "default", url: Url = DEFAULT_URL) -> None:
    """Drop a budget and its ledger; requests are no longer held to it."""
    call(url, "drop_budget", name, pool=pool)
    typer.echo(f"dropped {name} of pool {pool}")


def _terms(
    cap: float | None,
    request_ceiling: float | None,
    pacing: str | None,
    expected_requests: int | None,
    rate: float | None,
    quality_floor: float | None,
) -> dict[str, Any]:
    """Return what was given of what a budget can be made with and changed to."""
    _finite(cap=cap, request_ceiling=request_ceiling, rate=rate, quality_floor=quality_floor)
    given = {
        "cap_usd": cap,
        "request_ceiling_usd": request_ceiling,
        "pacing": pacing,
        "expected_requests": expected_requests,
        "rate_usd": rate,
        "quality_floor": quality_floor,
    }
    return {key: value for key, value in given.items() if value is not None}


def _finite(**amounts: float | None) -> None:
    for name, value in amounts.items():
        if value is not None and not math.isfinite(value):
            fail(f"--{name.replace('_', '-')}: a number is expected, not {value}")


def _tag(given: str | None) -> tuple[str | None, str | None]:
    if given is None:
        return None, None
    key, equals, value = given.partition("=")
    if not (key and equals and value):
        fail(f"--tag: KEY=VALUE is expected, not {given!r}")
    return key, value


def _print(budgets: list[dict[str, Any]]) -> None:
    money = ("cap", "settled", "reserved", "leased", "free")
    table = Table("budget", "window", "holds", *(f"{name} $" for name in money), "resets at")
    for one in budgets:
        span = f"{one['rolling_s']} s" if one["window"] == "rolling" else one["window"]
        holds = f"{one['tag']}={one['value']}" if one["tag"] else "all"
        amounts = (f"{one[f'{name}_usd']:.6g}" for name in money)
        table.add_row(one["name"], span, holds, *amounts, one["resets_at"] or "never")
    Console().print(table)

"""``banditroute budget``: the budgets of a running daemon; amounts are in US dollars."""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from banditroute.cli.console import DEFAULT_URL, PoolName, Url, call, fail

budgets_app = typer.Typer(help="The budgets of a running daemon.", no_args_is_help=True)

CAP = typer.Option("--cap", help="US dollars that one window may cost.")
Ceiling = Annotated[
    float | None,
    typer.Option("--request-ceiling", help="US dollars that a single request may reserve."),
]
Pacing = Annotated[
    str | None, typer.Option(help="How to spread the money: history (default), zcl, pacer, none.")
]
Requests = Annotated[
    int | None, typer.Option("--expected-requests", help="Requests per window, if known.")
]
Rate = Annotated[float | None, typer.Option("--rate", help="US dollars per request to pace to.")]
Floor = Annotated[
    float | None,
    typer.Option(help="Mean quality that pacing history meets at the least cost, in [0, 1]."),
]


@budgets_app.command("create")
def create(
    context: typer.Context,
    name: str,
    cap_usd: Annotated[float, CAP],
    window: Annotated[
        str, typer.Option(help="total, hour, day, month (calendar, UTC) or rolling.")
    ] = "total",
    rolling_s: Annotated[
        int | None, typer.Option(help="Length of a rolling window, in seconds.")
    ] = None,
    tag: Annotated[
        str | None, typer.Option(help="KEY=VALUE: apply only to requests with this tag.")
    ] = None,
    request_ceiling_usd: Ceiling = None,
    pacing: Pacing = None,
    expected_requests: Requests = None,
    rate_usd: Rate = None,
    quality_floor: Floor = None,
    pool: PoolName = "default",
    url: Url = DEFAULT_URL,
) -> None:
    """Add a budget; it applies from the next decision on."""
    terms = _terms(context)
    if tag is not None:
        terms["tag"], terms["value"] = _tag(tag)
    _print([call(url, "add_budget", name, pool=pool, **terms)])


@budgets_app.command("change")
def change(
    context: typer.Context,
    name: str,
    cap_usd: Annotated[float | None, CAP] = None,
    request_ceiling_usd: Ceiling = None,
    pacing: Pacing = None,
    expected_requests: Requests = None,
    rate_usd: Rate = None,
    quality_floor: Floor = None,
    pool: PoolName = "default",
    url: Url = DEFAULT_URL,
) -> None:
    """Change a budget; a cap below what is spent, reserved or leased is refused."""
    terms = _terms(context)
    if not terms:
        fail("nothing to change; see --help")
    _print([call(url, "change_budget", name, pool=pool, **terms)])


@budgets_app.command("topup")
def topup(
    context: typer.Context,
    name: str,
    top_up_usd: Annotated[float, typer.Option("--usd", help="US dollars to add to the cap.")],
    pool: PoolName = "default",
    url: Url = DEFAULT_URL,
) -> None:
    """Add to the cap of a budget."""
    _print([call(url, "change_budget", name, pool=pool, **_terms(context))])


@budgets_app.command("list")
def list_all(pool: PoolName = "default", url: Url = DEFAULT_URL) -> None:
    """List the budgets of a pool, with what is spent of them."""
    _print(call(url, "budgets", pool=pool))


@budgets_app.command("show")
def show(name: str, pool: PoolName = "default", url: Url = DEFAULT_URL) -> None:
    """Show a budget; every amount is a sum over the rows of the ledger."""
    for key, value in call(url, "budget", name, pool=pool).items():
        if value is not None:
            shown = f"{value:.9f}" if key.endswith("_usd") else value
            typer.echo(f"{key:20} {shown}")


@budgets_app.command("delete")
def delete(name: str, pool: PoolName = "default", url: Url = DEFAULT_URL) -> None:
    """Delete a budget and its ledger; it no longer applies to requests."""
    call(url, "drop_budget", name, pool=pool)
    typer.echo(f"dropped {name} of pool {pool}")


def _terms(context: typer.Context) -> dict[str, Any]:
    """Return the terms of a budget that were given as options, by their names in the HTTP API."""
    terms = {}
    for option in context.command.params:
        name = str(option.name)
        value = context.params[name]
        if isinstance(value, float) and not math.isfinite(value):
            fail(f"{option.opts[0]}: a number is expected, not {value}")
        if value is not None and name not in ("name", "pool", "url"):
            terms[name] = value
    return terms


def _tag(text: str) -> tuple[str, str]:
    """Return the key and the value of ``KEY=VALUE``."""
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        fail(f"--tag: KEY=VALUE is expected, not {text!r}")
    return key, value


def _print(budgets: list[dict[str, Any]]) -> None:
    money = ("cap", "settled", "reserved", "leased", "free")
    table = Table("budget", "window", "requests", *(f"{name} $" for name in money), "resets at")
    for budget in budgets:
        window = f"{budget['rolling_s']} s" if budget["window"] == "rolling" else budget["window"]
        requests = f"{budget['tag']}={budget['value']}" if budget["tag"] else "all"
        amounts = (f"{budget[f'{name}_usd']:.6g}" for name in money)
        table.add_row(budget["name"], window, requests, *amounts, budget["resets_at"] or "never")
    Console().print(table)

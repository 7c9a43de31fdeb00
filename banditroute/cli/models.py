"""``banditroute models``: the models of a running daemon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from banditroute.cli.console import DEFAULT_URL, PoolName, Url, call, fail

models_app = typer.Typer(help="The models of a running daemon.", no_args_is_help=True)
PRICE = typer.Option(help="US dollars per million tokens.")
_ADD_TIMEOUT_S = 120.0  # scored prompts may have to be embedded


@models_app.command("list")
def models_list(pool: PoolName = "default", url: Url = DEFAULT_URL) -> None:
    """List the models of a pool with the prices in force."""
    table = Table("model", "input $/M", "output $/M", "max output", "state")
    for model in call(url, "models", pool=pool):
        state = "draining" if model["draining"] else "active"
        limit = model["max_output_tokens"]
        prices = f"{model['input_price']:g}", f"{model['output_price']:g}"
        table.add_row(model["name"], *prices, str(limit or ""), state)
    Console().print(table)


@models_app.command("add")
def models_add(
    name: str,
    input_price: Annotated[float, PRICE],
    output_price: Annotated[float, PRICE],
    max_output_tokens: Annotated[
        int | None, typer.Option(help="Limit of an answer, in tokens.")
    ] = None,
    context_length: Annotated[
        int | None, typer.Option(help="Limit of a prompt, in tokens.")
    ] = None,
    capability: Annotated[
        list[str] | None, typer.Option(help="What it can do, such as tools; repeatable.")
    ] = None,
    scored: Annotated[
        Path | None, typer.Option(help="JSON lines with prompt (or embedding) and quality.")
    ] = None,
    n_effective: Annotated[
        float | None,
        typer.Option(help="Number of outcomes that the scored prompts count for (50)."),
    ] = None,
    pool: PoolName = "default",
    url: Url = DEFAULT_URL,
) -> None:
    """Add a model; a pool that does not exist is made."""
    if n_effective is not None and scored is None:
        fail("--n-effective goes with --scored")
    fields: dict[str, Any] = {
        "input_price": input_price,
        "output_price": output_price,
        "max_output_tokens": max_output_tokens,
        "context_length": context_length,
        "capabilities": capability or [],
    }
    if scored is not None:
        fields |= {"scored": _json_lines(scored), "n_effective": n_effective}
    answer = call(url, "add_model", name, pool=pool, timeout_s=_ADD_TIMEOUT_S, **fields)
    typer.echo(f"added {name} to pool {pool}")
    if prior := answer["prior"]:
        typer.echo(
            f"{prior['outcomes']} scored prompts in {prior['clusters']} clusters, worth "
            f"{prior['n_effective']:g} outcomes"
        )


@models_app.command("price")
def models_price(
    name: str,
    input_price: Annotated[float | None, PRICE] = None,
    output_price: Annotated[float | None, PRICE] = None,
    pool: PoolName = "default",
    url: Url = DEFAULT_URL,
) -> None:
    """Change a price; the next decision uses it, and nothing has to be learned again."""
    if input_price is None and output_price is None:
        fail("--input-price or --output-price is required")
    model = call(
        url, "set_price", name, pool=pool, input_price=input_price, output_price=output_price
    )
    typer.echo(f"{name}: {model['input_price']:g} in, {model['output_price']:g} out, $/M tokens")


@models_app.command("drain")
def models_drain(name: str, pool: PoolName = "default", url: Url = DEFAULT_URL) -> None:
    """Stop choosing a model; what was learned from it stays."""
    call(url, "drain_model", name, pool=pool)
    typer.echo(f"{name} drains")


def _json_lines(path: Path) -> list[Any]:
    """Return the objects of a file that has one on each line; empty lines are skipped."""
    try:
        # Not splitlines(): a string may contain U+2028 and other line separators.
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        fail(f"--scored: {path}: {error.strerror}")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError as error:
            fail(f"--scored: {path}: line {number}: {error}")
        if not isinstance(row, dict | None):
            fail(f"--scored: {path}: line {number}: an object is expected")
        rows += [] if row is None else [row]
    return rows

"""What the commands share that talk to a running daemon."""

from __future__ import annotations

from typing import Annotated, Any

import typer

Url = Annotated[str, typer.Option(envvar="BANDITROUTE_URL", help="The running daemon.")]
PoolName = Annotated[str, typer.Option("--pool", help="Name of the pool.")]
DEFAULT_URL = "http://127.0.0.1:8000"


def call(url: str, method: str, *args: Any, timeout: float = 10.0, **kwargs: Any) -> Any:
    import httpx

    from banditroute.client import Client, RouterError

    try:
        with Client(url, retries=0, timeout=timeout) as client:
            return getattr(client, method)(*args, **kwargs)
    except RouterError as error:
        fail(str(error) if error.status else f"no daemon answers at {url}: {error.message}")
    except httpx.InvalidURL as error:
        fail(f"--url {url}: {error}")
    except ValueError as error:
        fail(str(error))


def fail(message: str) -> Any:
    typer.echo(f"banditroute: {message}", err=True)
    raise typer.Exit(2)

"""What the commands share: options, calls to a running daemon, and how they fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer

Url = Annotated[str, typer.Option(envvar="BANDITROUTE_URL", help="URL of the running daemon.")]
PoolName = Annotated[str, typer.Option("--pool", help="Name of the pool.")]
DEFAULT_URL = "http://127.0.0.1:8000"


def call(url: str, method: str, *args: Any, timeout_s: float = 10.0, **kwargs: Any) -> Any:
    """Return the answer of a running daemon; end the program if there is none.

    Parameters
    ----------
    url : str
        URL of the daemon.
    method : str
        Name of a method of `banditroute.client.Client`.
    timeout_s : float
        Time limit, in seconds.
    *args, **kwargs : Any
        Arguments of the method.
    """
    import httpx

    from banditroute.client import Client, RouterError

    try:
        with Client(url, retries=0, timeout=timeout_s) as client:
            return getattr(client, method)(*args, **kwargs)
    except RouterError as error:
        fail(str(error) if error.status else f"no daemon answers at {url}: {error.message}")
    except httpx.InvalidURL as error:
        fail(f"--url {url}: {error}")
    except ValueError as error:
        fail(str(error))


@contextmanager
def failing(*kinds: type[Exception]) -> Iterator[None]:
    """End the program with the message of an error of these kinds that the block raises."""
    try:
        yield
    except kinds as error:
        fail(str(error))


def fail(message: str) -> NoReturn:
    """End the program with status 2 and one line on stderr."""
    typer.echo(f"banditroute: {message}", err=True)
    raise typer.Exit(2)

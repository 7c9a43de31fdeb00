"""What `banditroute warm-start` and `banditroute pretrain` share: their sources and their errors.

Heavy imports wait inside the functions, so that ``--help`` is quick.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from sim.errors import InputError

if TYPE_CHECKING:
    from banditroute.features.basis import Basis
    from banditroute.features.embedding import Embedder
    from policies.base import Arrays, Float32
    from sim.data.dataset import Dataset

PROMPTS_AT_ONCE = 64

Data = Annotated[
    Path | None,
    typer.Argument(metavar="DATA", help="A file of routing data, see --format; or --log."),
]
EmbedderKind = Annotated[
    str, typer.Option(help="Of DATA: hashing, minilm or sentence-transformers:NAME.")
]
Tasks = Annotated[
    list[str] | None, typer.Option(help="A task of the pool, in its order; repeatable.")
]
Split = Annotated[str | None, typer.Option(help="Only this split of DATA.")]
Without = Annotated[list[str] | None, typer.Option(help="Leave out a model; repeatable.")]
LogPool = Annotated[str, typer.Option(help="The pool of --log.")]


def fail(message: str) -> NoReturn:
    """Print a mistake of the caller as one line on stderr, and end with status 2.

    Parameters
    ----------
    message : str
        The option first, where there is one.
    """
    typer.echo(f"banditroute: {message}", err=True)
    raise typer.Exit(2)


@contextmanager
def failing_in_one_line(out: Path) -> Iterator[None]:
    """Call `fail` for a mistake, a missing package or a file that cannot be written.

    Parameters
    ----------
    out : Path
        The file that the body writes.
    """
    try:
        yield
    except (ValueError, ImportError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"--out: {out}: {error.strerror or error}")


def check_source(
    data: Path | None, log: str | None, *, embedder: str, tasks: Sequence[str], **of_data: object
) -> None:
    """Call `fail` unless there is one source, with options that belong to it.

    Parameters
    ----------
    data, log : Path, str
        Either is None.
    embedder, tasks : str, sequence of str
        The options of these names.
    **of_data : object
        Further options that a log does not take, since it holds what they say. By name; empty or
        None where they are not given.
    """
    if (data is None) == (log is None):
        fail("one of DATA and --log is expected")
    if log is not None and (embedder != "hashing" or tasks or any(of_data.values())):
        options = ["--embedder", "--task", *(f"--{name.replace('_', '-')}" for name in of_data)]
        fail(f"--log: takes no {', '.join(options[:-1])} or {options[-1]}: they are in it")
    if len(set(tasks)) < len(tasks):
        fail("--task: given twice")


def select_rows(dataset: Dataset, split: str | None, without: Sequence[str]) -> Dataset:
    """Return the rows of one split, without some models.

    Parameters
    ----------
    dataset : Dataset
        The data.
    split : str or None
        Name of the split, None for all rows.
    without : sequence of str
        Names of models.

    Raises
    ------
    InputError
        Naming the option, for a split or a model that the data does not have.
    """
    import numpy as np

    dataset = dataset.restrict(without=without)
    if split is None:
        return dataset
    rows = np.flatnonzero(np.array(dataset.split) == split)
    if not len(rows):
        raise InputError(f"--split: {dataset.name} has no split {split!r}")
    return dataset.take(rows)


def embed(dataset: Dataset, kind: str, tasks: Sequence[str]) -> tuple[str, Float32, Arrays]:
    """Return the features of the prompts, with columns for the tasks.

    Parameters
    ----------
    dataset : Dataset
        n prompts.
    kind : str
        Value of ``--embedder``.
    tasks : sequence of str
        Of the pool, in its order.

    Returns
    -------
    identity : str
        Of the embedder and the tasks.
    features : float32[n, d]
        The features.
    basis : dict of str to ndarray
        Arrays of the prior that hold the basis fitted to the prompts; empty for an embedder that
        needs none.

    Raises
    ------
    InputError, ValueError, ImportError
        For an embedder that does not exist, is not installed, or needs more prompts.
    """
    from banditroute.features.tasks import identity, widen

    embedder, x, basis = _features(kind, dataset.prompts)
    arrays: Arrays = {}
    if basis is not None:
        arrays = {"basis_mean": basis.mean, "basis_matrix": basis.matrix}
    return identity(embedder.identity, tasks), widen(x, dataset.task, tasks), arrays


def _features(kind: str, prompts: Sequence[str]) -> tuple[Embedder, Float32, Basis | None]:
    import numpy as np

    from banditroute.features.basis import COORDINATES
    from banditroute.features.embedding import make_embedder
    from banditroute.features.fit_basis import fit_principal
    from sim.commands.terminal import progress

    if kind == "precomputed":
        raise InputError("--embedder: there are no vectors in DATA; --log has them")
    embedder = make_embedder(kind)
    parts = [prompts[i : i + PROMPTS_AT_ONCE] for i in range(0, len(prompts), PROMPTS_AT_ONCE)]
    with progress(len(prompts), "embedding") as advance:
        if not embedder.slow:
            return embedder, np.concatenate([embedder.features(part) for part in parts]), None
        if len(prompts) <= COORDINATES:
            raise InputError(f"a basis takes over {COORDINATES} prompts, not {len(prompts)}")
        vectors = []
        for part in parts:
            vectors.append(embedder.vectors(part))
            advance(len(part))
    whole = np.concatenate(vectors)
    basis = fit_principal(whole)
    embedder = make_embedder(kind, basis=basis)
    return embedder, embedder.features(prompts, whole), basis

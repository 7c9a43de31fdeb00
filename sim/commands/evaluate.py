"""`sim evaluate`: what other policies would have done, from the log of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sim.commands import options

if TYPE_CHECKING:
    from sim.ope.logged_requests import DecisionHistory
    from sim.play.candidate import Candidate


def command(
    log: Annotated[
        str, typer.Option(help="URL of a daemon's database, a bandit log .parquet, or a spend log.")
    ],
    policy: Annotated[
        list[str] | None,
        typer.Option(help="FILE.yaml, NAME, NAME:key=value,.. or NAME@PRIOR_FILE; repeatable."),
    ] = None,
    baseline: Annotated[
        str, typer.Option(help="What all are compared with: logged, or one of the policies.")
    ] = "logged",
    pool: Annotated[str, typer.Option(help="Pool of the daemon.")] = "default",
    since: Annotated[
        str | None, typer.Option(help="Only decisions from this time on (ISO 8601, UTC).")
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(help="Only decisions with this tag, KEY=VALUE; of a file, its column."),
    ] = None,
    learn_fraction: Annotated[
        float,
        typer.Option(help="Share of the log that policies learn from before they are judged."),
    ] = 0.5,
    learning: Annotated[
        bool, typer.Option("--learning", help="Policies go on learning: by sequence replay.")
    ] = False,
    budget_rate: Annotated[
        float | None,
        typer.Option(help="USD per request that policies may spend: by sequence replay."),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(help="Print the mean of the decisions with this tag beside the estimates."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap and of acceptance.")] = 0,
    json_path: options.Json = None,
) -> None:
    """Judge policies that never ran, from logged decisions and their propensities."""
    import numpy as np

    from sim.commands.terminal import console, progress
    from sim.errors import InputError
    from sim.ope import direct_method as direct
    from sim.ope.evaluation import compare_with_log, evaluate, not_identified
    from sim.ope.rejection_replay import replay
    from sim.ope.tables import as_json, replayed_json, show, show_direct, show_replayed

    if not 0.0 <= learn_fraction < 1.0:
        raise InputError(f"--learn-fraction: in [0, 1), not {learn_fraction:g}")
    if budget_rate is not None and not 0.0 < budget_rate < float("inf"):
        raise InputError(f"--budget-rate: must be above 0, not {budget_rate:g}")
    options.writable("--json", json_path)
    moment, tags = _microseconds(since), _tags("--tag", tag or [])
    beside = _tags("--compare", [] if compare is None else [compare])
    for key, value in beside.items():
        if tags.get(key, value) == value:
            raise InputError(f"--compare: --tag must select other decisions, by {key}=OTHER")
    history = _read(log, pool, moment, tags)
    elsewhere = [spec for spec in policy or [] if spec.startswith("logged:")]
    contenders = _contenders([spec for spec in policy or [] if spec not in elsewhere], history)
    if baseline not in ("logged", *(one.label for one in contenders)):
        raise InputError(f"--baseline: {baseline!r} is neither 'logged' nor a --policy")
    if learning or budget_rate is not None:
        option = "--learning" if learning else "--budget-rate"
        if not contenders:
            raise InputError(f"{option}: a --policy is expected, to be replayed")
        for unused, asked in (
            ("--compare", compare is not None),
            ("--baseline", baseline != "logged"),
            ("--policy logged:..", bool(elsewhere)),
        ):
            if asked:
                raise InputError(f"{unused}: not together with {option}: nothing is compared there")
    shown = console()
    report: dict[str, object]
    if np.isnan(history.log.propensity).any():
        for option, given in (
            ("--learning", learning),
            ("--budget-rate", budget_rate),
            ("--compare", compare),
        ):
            if given:
                raise InputError(f"{option}: {log} has no propensities")
        said = direct.estimates(history, contenders, fraction=learn_fraction)
        show_direct(shown, history.log, said)
        report, refused = {"log": history.log.name, "direct": said}, False
    elif learning or budget_rate is not None:
        first = round(learn_fraction * len(history.log))
        with progress(len(contenders)) as advance:
            replayed = []
            for one in contenders:
                replayed.append(
                    replay(
                        history,
                        one,
                        first=first,
                        learning=learning,
                        budget_rate_usd=budget_rate,
                        seed=seed,
                    )
                )
                advance()
        show_replayed(shown, replayed)
        report = {"log": history.log.name, "replayed": replayed_json(replayed)}
        refused = all(one.refusal for one in replayed)
    else:
        found = evaluate(history, contenders, fraction=learn_fraction, baseline=baseline, seed=seed)
        found.policies += [not_identified(spec) for spec in elsewhere]
        if compare is not None:
            other = _read(log, pool, moment, beside).log
            found.comparison = compare_with_log(found, other, compare)
        show(shown, found)
        report = as_json(found)
        named = [one for one in found.policies if one.label != "logged"]
        refused = bool(named) and all(one.refusal for one in named)
    if json_path is not None:
        options.write_json(json_path, report)
    if refused:
        raise typer.Exit(3)


def _tags(option: str, pairs: list[str]) -> dict[str, str]:
    from sim.errors import InputError

    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"{option}: {pair!r} is not KEY=VALUE")
        found[key] = value
    return found


def _microseconds(text: str | None) -> int | None:
    from datetime import UTC, datetime

    from sim.errors import InputError

    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"--since: {text!r} is not a date or time in ISO 8601") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1e6)


def _read(log: str, pool: str, since: int | None, tags: dict[str, str]) -> DecisionHistory:
    from sim.data.database import opened
    from sim.errors import InputError
    from sim.ope import direct_method as direct
    from sim.ope import read_database as daemon
    from sim.ope import read_parquet as files

    if "://" in log:
        with opened(log) as store:
            return daemon.read(store, pool, since=since, tags=tags)
    if since is not None:
        raise InputError("--since: the rows of a file have no time that is known; --tag selects")
    path = Path(log)
    if files.is_log(path) or not path.exists():
        return files.history_of(files.read(path, tags=tags))
    if tags:
        raise InputError(f"--tag: {log} has no tags to select by")
    return files.history_of(direct.read(path))


def _contenders(specs: list[str], history: DecisionHistory) -> list[Candidate]:
    from sim.errors import InputError
    from sim.play.candidate import distinct, parse
    from sim.play.libraries import PEERS

    contenders = [parse(spec) for spec in specs]
    distinct(contenders)
    for one in contenders:
        if one.name in PEERS:
            raise InputError(f"--policy: {one.label!r} has no law of its choices to be judged by")
        if one.options.reset_on_drift:
            raise InputError(f"--policy: {one.label!r}: reset_on_drift: no alarm is answered here")
        if one.label == "logged":
            raise InputError("--policy: 'logged' is the policy that decided; it is always judged")
        one.check(
            models=history.log.models,
            embedder=history.policy_identity.embedder,
            dim=history.policy_identity.dim,
        )
    return contenders

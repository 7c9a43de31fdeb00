"""Candidates: policies to be judged, each with the pool's settings around it.

What a person writes of them is checked here, before anything is played; a mistake is one line. A
prior is read once and kept as text, so that no file is needed in the process that plays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from banditroute.core.mistakes import explain
from banditroute.core.pool import PolicySpec, PoolOptions, Preference
from banditroute.core.yaml_file import YamlError, read_yaml
from banditroute.learn.prior import Prior, parse_prior
from policies import make_policy
from sim.errors import InputError, input_errors
from sim.play import libraries

KEYS = (
    "policy",
    "prior",
    "exploration_share",
    "exploration_cost_share",
    "min_propensity",
    "newcomer_share",
    "newcomer_pulls",
    "newcomer_optimism",
    "reset_on_drift",
    "recheck_share",
    "tau_cost",
    "tau_latency_ms",
)
"""The keys of a pool that belong to a policy; all others belong to the data or the command."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy to be judged.

    Attributes
    ----------
    label : str
        Its name in reports.
    options : PoolOptions
        Of the pool that it decides in. `options.policy.name` is one of `policies.POLICIES` or of
        `sim.play.libraries.LIBRARIES`.
    prior : str
        A `banditroute.learn.prior.Prior` as text, "" for none; never in `options`.
    pacing : str
        The mode that sets the price of a budget's money.
    """

    label: str
    options: PoolOptions
    prior: str = ""
    pacing: str = "history"

    @classmethod
    def of(
        cls,
        name: str,
        params: dict[str, object] | None = None,
        *,
        label: str = "",
        prior: str = "",
        pacing: str = "history",
        **options: Any,
    ) -> Candidate:
        """Return a policy as a candidate.

        Parameters
        ----------
        name : str
            Of the policy.
        params : dict of str to object, optional
            Its parameters.
        label, prior, pacing : str
            As the attributes; the label is the name by default.
        **options : Any
            Keys of a pool.
        """
        policy = PolicySpec.model_validate({"name": name, **(params or {})})
        pool = PoolOptions.model_validate({"policy": policy, **options})
        return cls(label or name, pool, prior, pacing)

    @property
    def name(self) -> str:
        """Name of the policy."""
        return self.options.policy.name

    @property
    def params(self) -> dict[str, object]:
        """Its keyword parameters."""
        return self.options.policy.params

    def check(
        self,
        *,
        models: Sequence[str],
        embedder: str,
        dim: int,
        has_budget: bool = False,
        quality_weight: float = 1.0,
    ) -> None:
        """Check that the candidate fits the data.

        Parameters
        ----------
        models : sequence of str
            Names in the data.
        embedder, dim : str, int
            Origin and length of the features.
        has_budget : bool
            Whether money is limited.
        quality_weight : float
            Weight of quality in the preference.

        Raises
        ------
        InputError
            Naming the policy and its parameter.
        """
        where = f"--policy: {self.label!r}"
        if self.params.get("arm", models[0]) not in models:
            names = ", ".join(models)
            raise InputError(f"{where}: arm: no such model; the data has {names}")
        if self.name in libraries.LIBRARIES:
            if has_budget and not libraries.LIBRARIES[self.name].budgets:
                raise InputError(f"{where}: {self.name} has no budget control")
            if quality_weight == 0.0:
                raise InputError(f"{where}: {self.name} needs a weight of quality above 0")
            return
        with input_errors(where, ValueError):
            policy = make_policy(self.name, dim=dim, params=self.params)
            if self.prior:
                prior = parse_prior(self.prior)
                prior.check_embedder(embedder)
                policy.adopt(prior.arrays)
            for model in models:
                policy.add_arm(model)


def parse_candidate(text: str) -> Candidate:
    """Return the candidate that a value of ``--policy`` names; the text is its label.

    Parameters
    ----------
    text : str
        ``NAME``, ``NAME:key=value,..``, ``NAME@PRIOR_FILE:..``, or ``FILE.yaml``, which holds
        those keys of a pool that are in `KEYS`.

    Raises
    ------
    InputError
        Naming the text or the file, and the key.
    """
    if text.endswith((".yaml", ".yml")):
        return _read(Path(text))
    head, _, pairs = text.partition(":")
    name, separator, file = head.partition("@")
    where = f"--policy: {text!r}"
    if separator and not file:
        raise InputError(f"{where}: a file is expected after @")
    params: dict[str, object] = {}
    for pair in filter(None, map(str.strip, pairs.split(","))):
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"{where}: {pair!r} is not key=value")
        params[key] = _value(value)
    with input_errors(where, ValueError):
        _check_policy(name, params)
        prior = Prior.read(Path(file)).text() if file else ""
    return Candidate.of(name, params, label=text, prior=prior)


def parse_preference(text: str) -> tuple[float, float, float]:
    """Return weights of (quality, cost, latency), which sum to 1.

    Parameters
    ----------
    text : str
        Three numbers separated by commas.

    Raises
    ------
    InputError
        Naming the option and the text.
    """
    try:
        quality, cost, latency = (float(part) for part in text.split(","))
        return Preference(quality=quality, cost=cost, latency=latency).weights()
    except ValidationError as error:
        reason = explain(error)
    except ValueError:
        reason = "expected three numbers, quality,cost,latency"
    raise InputError(f"--preference: {text!r}: {reason}")


def check_labels(candidates: Sequence[Candidate]) -> None:
    """Raise InputError if two candidates have the same label."""
    labels: set[str] = set()
    for candidate in candidates:
        if candidate.label in labels:
            raise InputError(f"--policy: {candidate.label!r} is given twice")
        labels.add(candidate.label)


def _read(path: Path) -> Candidate:
    where = f"--policy: {path}"
    with input_errors(where, YamlError):
        content = read_yaml(path).content
    if content is None:
        raise InputError(f"{where}: a mapping of keys is expected")
    for key in content:
        if key not in KEYS:
            raise InputError(f"{where}: {key}: not a key of a policy; valid: {', '.join(KEYS)}")
    try:
        options = PoolOptions.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{where}: {explain(error)}") from error
    try:
        _check_policy(options.policy.name, options.policy.params)
    except ValueError as error:
        raise InputError(f"{where}: policy.{error}") from error
    with input_errors(where, ValueError):
        prior = Prior.read(path.parent / options.prior).text() if options.prior else ""
    return Candidate(str(path), options.model_copy(update={"prior": None}), prior)


def _check_policy(name: str, params: dict[str, object]) -> None:
    """Raise ValueError for a policy or a parameter that does not exist, or a wrong value."""
    if name in libraries.LIBRARIES:
        libraries.check(name, params)
    else:
        make_policy(name, dim=1, params=params)


def _value(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)

"""A run as a file: `sim replay` writes it, `sim report` draws it. Nothing here computes.

A run is a list of stages, one for each world that was played (a data set under a scenario, and a
budget), with all candidates that played it. Every mean stands with its standard error, over seeds
where there are several and else over requests. Keys are a format: they do not change.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from banditroute.core.mistakes import explain
from sim.errors import InputError, input_errors

FORMAT: Literal["banditroute-run/1"] = "banditroute-run/1"


class Part(BaseModel):
    """Base of all parts of the file; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Measure(Part):
    """A mean and its standard error; None where it is undefined."""

    mean: float | None
    se: float | None = None


class Point(Part):
    """A point of the quality-cost plane; cost in US dollars per request, with standard errors."""

    name: str
    quality: float
    cost: float
    quality_se: float | None = None
    cost_se: float | None = None


class Band(Part):
    """A curve over the requests: the mean over seeds and its 95 % interval.

    With one seed the interval has no width.

    Attributes
    ----------
    mean, low, high : list of float
        A value for each `at` of the candidate.
    """

    mean: list[float]
    low: list[float]
    high: list[float]


class Adapted(Part):
    """How many requests a policy needed after a change, in the median over seeds.

    Attributes
    ----------
    at : int
        The request at which the change comes.
    outcome : str
        "adapted"; "never" where that is the median; "settled" where in most seeds the choices
        before the change were about as good as any after it.
    requests : float or None
        See `sim.measure.adaptation`; None unless adapted.
    low, high : float or None
        The quartiles over the seeds in which there was something to adapt to; None for never.
    seeds : int
        The number of these seeds.
    """

    at: int
    outcome: Literal["adapted", "never", "settled"]
    requests: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int


class CandidateResult(Part):
    """One candidate, over all seeds.

    Attributes
    ----------
    label : str
        Its label.
    seeds : int
        Number of seeds.
    metrics : dict of str to Measure
        By name, see `sim.measure.summary`.
    tasks : dict of str to dict of str to Measure
        By task: quality, cost, the zero router's quality at that cost, the difference, and the
        number of requests; all of the requests of that task alone.
    share : dict of str to Measure
        By model, the share of the answered requests.
    at : list of int
        Ends of the m bins of the curves, in requests.
    curves : dict of str to Band
        Those that make sense of: "regret" (cumulated, to the oracle), "gain" (cumulated, quality
        above that of the zero router of the same mean cost), "quality" and "utility" (mean of each
        bin), "spent" (cumulated, share of the whole budget).
    shares : dict of str to list of float
        By model, the share of the requests of each bin.
    propensity : list of int or None
        Counts of the propensity of the choice in 20 equal bins of [0, 1]; None for a policy
        without propensities.
    adapted : list of Adapted
        One for each request at which something changes.
    per_seed : dict of str to list of (float or None)
        By metric, a value for each seed.
    """

    label: str
    seeds: int
    metrics: dict[str, Measure]
    tasks: dict[str, dict[str, Measure]] = {}
    share: dict[str, Measure] = {}
    at: list[int] = []
    curves: dict[str, Band] = {}
    shares: dict[str, list[float]] = {}
    propensity: list[int] | None = None
    adapted: list[Adapted] = []
    per_seed: dict[str, list[float | None]] = {}


class TimelineEvent(Part):
    """What happens at a request, in words."""

    at: int
    label: str


class Stage(Part):
    """One world and all candidates that played it.

    Attributes
    ----------
    title : str
        A few words.
    says : str
        One sentence on what happens in it.
    scenario : str
        The title without the budget. Stages of one scenario are one world under several budgets.
        "" for a stage that stands alone.
    requests : int
        The number of scored requests.
    budget_rate : float or None
        US dollars per request, None for no budget.
    changes : list of TimelineEvent
        What happens, in order.
    models : list of Point
        Every model alone.
    frontier : list of Point
        Corners of the zero router, cost ascending.
    references : list of Point
        "random", "best single: MODEL", "oracle", and "supervised limit" where it is known.
    limit : list of Point
        The supervised limit at several costs, ascending; empty where it is not known.
    zero_aiq : Measure
        AIQ of the zero router, see `sim.measure.scores.aiq`.
    single_regret : Band or None
        Cumulated regret of the best single model, at the same requests as the candidates' curves.
    errors_over : str
        What standard errors are over: "requests" where there is one seed, else "seeds".
    contenders : list of CandidateResult
        The candidates.
    """

    title: str
    says: str = ""
    scenario: str = ""
    requests: int
    budget_rate: float | None = None
    changes: list[TimelineEvent] = []
    models: list[Point]
    frontier: list[Point]
    references: list[Point]
    limit: list[Point] = []
    zero_aiq: Measure = Measure(mean=None)
    single_regret: Band | None = None
    errors_over: Literal["seeds", "requests"] = "seeds"
    contenders: list[CandidateResult]


def by_scenario(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Return the stages in their order, grouped where several budgets of a scenario follow.

    Parameters
    ----------
    stages : sequence of Stage
        Of a run.
    """
    groups: list[list[Stage]] = []
    for stage in stages:
        before = groups[-1][0] if groups else None
        alike = before is not None and stage.scenario and stage.scenario == before.scenario
        if alike and stage.budget_rate is not None:
            groups[-1].append(stage)
        else:
            groups.append([stage])
    return groups


class RunFile(Part):
    """A whole run, with what is needed to repeat it.

    Attributes
    ----------
    format : str
        Version of the file format.
    title : str
        The data and the scenarios.
    command : list of str
        As it was typed, without passwords.
    versions : dict of str to str
        By package, of those on which the figures depend.
    data : dict
        Name, digest, rows and models of the data set.
    settings : dict
        Options that hold for all stages.
    stages : list of Stage
        In the order in which they were played.
    """

    format: Literal["banditroute-run/1"] = FORMAT
    title: str
    command: list[str]
    versions: dict[str, str]
    data: dict[str, str | int | list[str]]
    settings: dict[str, str | int | float | bool | None | list[float]] = {}
    stages: list[Stage]

    def write(self, path: Path) -> None:
        """Write the file.

        Parameters
        ----------
        path : Path
            The file.

        Raises
        ------
        InputError
            If it cannot be written.
        """
        with input_errors(str(path), OSError):
            path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> RunFile:
        """Read a file that `write` made.

        Parameters
        ----------
        path : Path
            The file.

        Raises
        ------
        InputError
            Naming the file and the field.
        """
        with input_errors(str(path), OSError):
            content = path.read_bytes()
        try:
            return cls.model_validate(json.loads(content))
        except ValidationError as error:
            raise InputError(f"{path}: {explain(error)}") from error
        except ValueError as error:
            raise InputError(f"{path}: not JSON") from error

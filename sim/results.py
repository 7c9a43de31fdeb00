"""A run as a file: what `sim replay` writes and `sim report` draws, and nothing that it computes.

A run is a list of stages, one for each world that was played (a data set under a scenario, and a
budget), each with everybody who played it. Every mean stands with its standard error, over seeds
where there are several and else over requests.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from banditroute.core.mistakes import explain
from sim.errors import InputError

FORMAT: Literal["banditroute-run/1"] = "banditroute-run/1"


class Part(BaseModel):
    """Base of all parts; a key that is not known is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Measure(Part):
    """A mean and its standard error; None: undefined."""

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
    """A curve over the requests: mean over seeds and its 95 % interval, one value for each `at`.

    The interval has no width where there is one seed.
    """

    mean: list[float]
    low: list[float]
    high: list[float]


class Adapted(Part):
    """How many requests a policy needed after a change, in the median over seeds.

    Attributes
    ----------
    at : the request at which the change comes.
    outcome : "never" where that is the median, "settled" where in most seeds the choices made
        before were about as good as any after; `requests` is None for both.
    requests : see `sim.measure.adaptation`; of the values in `Yardstick.values`.
    low, high : the quartiles over the seeds in which there was a way to go; None for never.
    seeds : how many these are.
    """

    at: int
    outcome: Literal["adapted", "never", "settled"]
    requests: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int


class CandidateResult(Part):
    """One policy, over all seeds.

    Attributes
    ----------
    metrics : by name, see `sim.measure.summary`.
    tasks : by task, quality, cost, the zero router's quality at that cost and the difference, all
        of the requests of the task alone, and the number of these.
    share : by model, of the answered requests.
    at : int[m], ends of the bins of the curves, in requests.
    curves : "regret" (cumulated, to the oracle), "gain" (cumulated, quality above that of the zero
        router of the same mean cost), "quality" and "utility" (mean of each bin), "spent"
        (cumulated, share of the whole budget); those that make sense.
    shares : by model, float[m], of the requests of each bin.
    propensity : counts of the propensity of the choice in 20 equal bins of [0, 1]; None where the
        policy has no propensities.
    adapted : one for each request at which something changes.
    per_seed : by metric, one value for each seed.
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
    """Something that happens at a request, in words."""

    at: int
    label: str


class Stage(Part):
    """One world and everybody who played it.

    Attributes
    ----------
    title : a few words; says : one sentence on what happens in it.
    scenario : the title without the budget. Stages of one scenario are one world under several
        budgets; "" for a stage that stands alone.
    requests : how many are scored.
    budget_rate : US dollars per request, None for no budget.
    frontier : corners of the zero router, cost ascending.
    models : every model alone.
    references : "random", "best single: MODEL", "oracle", "supervised limit" as far as known.
    limit : the supervised limit at several costs, ascending; empty where it is not known.
    zero_aiq : AIQ of the zero router, see `sim.measure.scores.aiq`.
    single_regret : cumulated regret of the best single model, at the same requests as the
        contenders' curves.
    errors_over : what standard errors are over; "requests" where there is one seed.
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
    """Return the stages in their order, grouped where several budgets of a scenario follow."""
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
    """A whole run, with what is needed to run it again.

    Attributes
    ----------
    command : as it was typed.
    versions : of what the figures depend on, by package.
    data : name, digest, rows and models of the data set.
    """

    format: Literal["banditroute-run/1"] = FORMAT
    title: str
    command: list[str]
    versions: dict[str, str]
    data: dict[str, str | int | list[str]]
    settings: dict[str, str | int | float | bool | None | list[float]] = {}
    stages: list[Stage]

    def write(self, path: Path) -> None:
        """Write the file; what the system says against it is an InputError."""
        try:
            path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error

    @classmethod
    def read(cls, path: Path) -> RunFile:
        """Read a file that `write` made.

        Raises
        ------
        InputError
            Naming the file and the field.
        """
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error
        except ValidationError as error:
            raise InputError(f"{path}: {explain(error)}") from error
        except ValueError as error:
            raise InputError(f"{path}: not JSON") from error

"""Whether the arms are still as good as they were: a change detector beside every policy.

It compares each reward with what a regression of its own expected of that arm, and adds up what
is left in a CUSUM in either direction. Everything here is a fold over the log. An alarm changes
nothing by itself: it stands until a reset event is in the log, or until too little speaks for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from policies.base import Arrays, Outcome
from policies.ridge import RidgeArms, next_position

FALSE_ALARM_EVERY = 10_000
"""Outcomes of an arm from one false alarm to the next, by Siegmund's formula; see `Drift`."""

_WARM, _CLIP, _VARIANCE, _WEIGHT = 20, 3.0, 0.09, 4.0
_SLOPES, _LEVEL, _PRIOR = 100.0, 1.0, 0.7
_WAVES, _REGAINED = 50.0, 2.0 / 3.0
_MANY, _SOME = 512, 4
TILTS = (-1.0, 1.0, -0.25, 0.25)
_TILTS, _OVERSHOOT = len(TILTS), 1.166


def _threshold(tilt: float) -> float:
    """Return the h of a tilt on normal residuals, a quarter of the false alarms its own."""
    k = 0.5 * abs(tilt)
    outcomes = _TILTS * FALSE_ALARM_EVERY

    def surplus(reach: float) -> float:
        power = 2.0 * k * (reach + _OVERSHOOT)
        return (math.exp(power) - power - 1.0) / (2.0 * k * k) - outcomes

    return abs(tilt) * float(brentq(surplus, 0.0, 40.0 / k))


THRESHOLDS = tuple(_threshold(tilt) for tilt in TILTS)


class Drift:
    """Four CUSUMs per arm on standardised residuals: worse or better, and much or a little.

    Parameters
    ----------
    dim : number of features; the last one is the intercept.

    Notes
    -----
    With z a residual over its own standard deviation, at most 3 either way, and tilts t of -+1 and
    -+1/4, the statistics are ``g = max(0, g + t z - k)`` and an alarm is ``g >= h``. The allowance
    is ``k = log(mean of exp(t z)) + |t| / sqrt(n)``: the first part makes exp(g) a martingale
    whatever the shape of the arm's rewards (of normal ones it is t^2 / 2), the second is what n
    outcomes leave open of the arm's level. [2]_ gives h: each tilt may raise a false alarm in
    40,000 outcomes, so all four one in 10,000. Changes of half a deviation are the forte of the
    smaller tilts, of one and more that of the larger ones.

    What is expected, its deviation and k are taken anew when an arm has 4, 8, 16, 32, 64, .. of
    its outcomes, unless a statistic is above h / 2: a change must not explain itself away. From
    512 on every fourth outcome is enough to expect by. An arm is watched from its 20th outcome
    on, and at once after a reset.

    References
    ----------
    .. [1] Page (1954). Continuous inspection schemes. Biometrika.
    .. [2] Siegmund (1985). Sequential analysis. Springer. Chapter 2.

    Examples
    --------
    >>> drift, x = Drift(dim=1), np.ones(1, dtype=np.float32)
    >>> drift.add_arm("large")
    >>> rewards = [0.9, 0.8] * 50 + [0.6] * 8
    >>> for seq, reward in enumerate(rewards, start=1):
    ...     drift.learn(Outcome(seq, "d", "large", x, "quality", reward))
    >>> drift.alarms()
    {'large': 104}
    >>> shift, worth = drift.reset("large", trigger_seq=104)
    >>> round(shift, 2), worth, drift.alarms()
    (-0.23, 9.0, {})
    """

    def __init__(self, *, dim: int) -> None:
        precision, mean = np.full(dim, _SLOPES), np.zeros(dim)
        precision[-1], mean[-1] = _LEVEL, _PRIOR
        self.arms: list[str] = []
        self.ridge = RidgeArms(precision=precision, mean=mean)
        self.expected = np.zeros((0, dim), dtype=np.float32)
        self._watches: list[_Watch] = []

    def add_arm(self, name: str) -> None:
        """Add an arm; one that was here before keeps what it has learned."""
        if name not in self.arms:
            self.arms.append(name)
            self.ridge.grow()
            row = np.zeros((1, self.expected.shape[1]), dtype=np.float32)
            self.expected = np.concatenate([self.expected, row])
            self._watches.append(_Watch())
            self._expect(len(self.arms) - 1)

    def learn(self, outcome: Outcome) -> None:
        """Compare one quality with what was expected, then expect it a little more."""
        if outcome.arm not in self.arms:
            raise KeyError(outcome.arm)
        arm = self.arms.index(outcome.arm)
        watch = self._watches[arm]
        learns = watch.age < _MANY or watch.age % _SOME == 0
        error = outcome.value - float(self.expected[arm].dot(outcome.x))
        watch.look(error, outcome.seq, learns=learns)
        if learns:
            self.ridge.update(arm, outcome.x, outcome.value, 0)
        if watch.age >= watch.due and watch.calm():
            watch.due = next_position(watch.age)
            self._expect(arm)

    def _expect(self, arm: int) -> None:
        """Take anew what is expected of an arm, its deviation and the allowances."""
        self.expected[arm] = self.ridge.solve_one(arm, 0)[0]
        known = float(self.ridge.level_counts(0)[arm]) + _LEVEL
        self._watches[arm].settle(float(self.expected[arm, -1]), known)

    def alarms(self) -> dict[str, int]:
        """Return the arms whose alarm stands, and the log position that raised it."""
        pairs = zip(self.arms, self._watches, strict=True)
        return {name: watch.trigger for name, watch in pairs if watch.trigger}

    def reset(self, name: str, trigger_seq: int = 0) -> tuple[float, float] | None:
        """Start anew from where an arm is now; return (shift, worth) for `Policy.reset_arm`.

        The shift is the mean residual since the statistic was last 0, worth that many outcomes.
        Without a trigger all is unsure, whatever stands. An answer to an alarm that does not
        stand any more comes too late: None, and nothing has changed.
        """
        if name not in self.arms:
            raise KeyError(name)
        arm = self.arms.index(name)
        if trigger_seq and trigger_seq != self._watches[arm].trigger:
            return None
        shift, worth = self._watches[arm].answer(told=trigger_seq > 0)
        self.ridge.forget_level(arm, shift=shift, worth=worth, clock=0)
        self._watches[arm].fallen_to = float(self.ridge.solve_one(arm, 0)[0][-1])
        self._expect(arm)
        return shift, worth

    def withdraw(self) -> None:
        """Let no alarm stand, and add up from 0 again."""
        for watch in self._watches:
            watch.clear()

    def state(self) -> Arrays:
        """Return everything as plain arrays."""
        own: Arrays = {"arms": np.array(self.arms, dtype=np.str_), "expected": self.expected.copy()}
        for name, (kind, shape) in _FIELDS.items():
            values = [getattr(watch, name) for watch in self._watches]
            own[name] = np.array(values, dtype=kind).reshape(-1, *shape)
        return own | {f"ridge_{name}": array for name, array in self.ridge.state().items()}

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over a `state`."""
        self.arms = [str(name) for name in state["arms"]]
        self.expected = np.array(state["expected"], dtype=np.float32)
        self._watches = [_Watch() for _ in self.arms]
        for name in _FIELDS:
            for watch, value in zip(self._watches, state[name].tolist(), strict=True):
                setattr(watch, name, value)
        self.ridge.load({name: state[f"ridge_{name}"] for name in self.ridge.state()})

    def publish(self) -> Arrays:
        """Return, per arm, what a router and an operator have to know.

        ``level`` float64[K]: the largest g / h, negative for the worse: an alarm from 1 on.
        ``trigger`` int64[K]: the event whose alarm stands, 0 for none.
        ``suspect`` bool[K]: found worse, and neither found better since nor two thirds back.
        """
        return {
            "level": np.array([watch.level() for watch in self._watches]),
            "trigger": np.array([watch.trigger for watch in self._watches], dtype=np.int64),
            "suspect": np.array([watch.suspect for watch in self._watches], dtype=np.bool_),
        }


@dataclass(slots=True)
class _Watch:
    """The statistics of one arm; plain numbers, since calls into numpy would take far longer.

    Attributes
    ----------
    excess, run, moved : per tilt g, the outcomes since it was last 0 and the sum of their errors.
    waves, weight : per tilt the sum of exp(t z), and over how many.
    allow : per tilt k.
    square, freedom, deviation : sum of squared errors, over how many, and the deviation in force.
    age, due : outcomes, and how many there will be when expectations are taken anew.
    blind : outcomes that are not compared yet.
    trigger : the event whose alarm stands, 0 for none.
    suspect : whether it was found worse, and not better since.
    fall, fallen_to : how much worse, and the level after that.
    """

    excess: list[float] = field(default_factory=lambda: [0.0] * _TILTS)
    run: list[float] = field(default_factory=lambda: [0.0] * _TILTS)
    moved: list[float] = field(default_factory=lambda: [0.0] * _TILTS)
    waves: list[float] = field(
        default_factory=lambda: [_WAVES * math.exp(tilt * tilt / 2.0) for tilt in TILTS]
    )
    weight: float = _WAVES
    allow: list[float] = field(default_factory=lambda: [0.0] * _TILTS)
    square: float = _VARIANCE * _WEIGHT
    freedom: float = _WEIGHT
    deviation: float = 1.0
    age: int = 0
    due: int = next_position(0)
    blind: int = _WARM
    trigger: int = 0
    suspect: bool = False
    fall: float = 0.0
    fallen_to: float = 0.0

    def look(self, error: float, seq: int, *, learns: bool) -> None:
        """Take in the error of one outcome, and learn from it what errors are like."""
        self.age += 1
        if learns and self.age > _WEIGHT:
            self.square += error * error
            self.freedom += 1.0
        if self.blind:
            self.blind -= 1
            return
        z = min(max(error / self.deviation, -_CLIP), _CLIP)
        if learns:
            self.weight += 1.0
            for i, tilt in enumerate(TILTS):
                self.waves[i] += math.exp(tilt * z)
        alarm = False
        for i, tilt in enumerate(TILTS):
            g = self.excess[i] + tilt * z - self.allow[i]
            if g > 0.0:
                self.excess[i] = g
                self.run[i] += 1.0
                self.moved[i] += error
                alarm = alarm or g >= THRESHOLDS[i]
            elif self.run[i]:
                self.excess[i] = self.run[i] = self.moved[i] = 0.0
        if alarm and not self.trigger:
            self.trigger = seq
        elif self.trigger and self.calm():
            self.trigger = 0

    def calm(self) -> bool:
        """Whether nothing speaks of a change that must not explain itself away."""
        return abs(self.level()) <= 0.5

    def settle(self, level: float, known: float) -> None:
        """Take deviation and allowances anew, at a level that `known` outcomes tell."""
        if self.suspect and level - self.fallen_to >= _REGAINED * self.fall:
            self.suspect = False  # so much of a fall comes back where there was none
        self.deviation = math.sqrt(self.square / self.freedom)
        for i, tilt in enumerate(TILTS):
            self.allow[i] = math.log(self.waves[i] / self.weight) + abs(tilt) / math.sqrt(known)

    def level(self) -> float:
        """Return the largest g / h, negative for a tilt to the worse."""
        i = self._largest()
        return self.excess[i] / THRESHOLDS[i] * (1.0 if TILTS[i] > 0.0 or not self.run[i] else -1.0)

    def _largest(self) -> int:
        return max(range(_TILTS), key=lambda i: self.excess[i] / THRESHOLDS[i])

    def answer(self, *, told: bool) -> tuple[float, float]:
        """Return (shift, worth) of a reset and start anew; `told` by the alarm that stands."""
        shift, worth = 0.0, 2.0
        if told:
            i = self._largest()
            shift, worth = self.moved[i] / self.run[i], self.run[i]
            self.suspect, self.fall = TILTS[i] < 0.0, -shift
        self.clear()
        self.age, self.due, self.blind = 0, next_position(0), 0
        return shift, worth

    def clear(self) -> None:
        """Add up from 0 again, and let no alarm stand."""
        for statistic in (self.excess, self.run, self.moved):
            statistic[:] = [0.0] * _TILTS
        self.trigger = 0


_FIELDS: dict[str, tuple[type, tuple[int, ...]]] = {
    **dict.fromkeys(("excess", "run", "moved", "waves", "allow"), (np.float64, (_TILTS,))),
    **dict.fromkeys(("weight", "square", "freedom", "deviation"), (np.float64, ())),
    **dict.fromkeys(("fall", "fallen_to"), (np.float64, ())),
    **dict.fromkeys(("age", "due", "blind", "trigger"), (np.int64, ())),
    "suspect": (np.bool_, ()),
}

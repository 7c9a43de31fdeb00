"""The net of BaRP: logits of a prompt under a preference, and how outcomes move them.

Everything here is a pure function of plain float64 arrays, so that a fold can take the steps and a
test can hold them against another's derivatives. Nothing here knows of arms by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.base import Float64
from policies.preference import QUALITY_WEIGHT_FLOOR

HIDDEN = 8
"""Units of the preference's MLP."""

_SEED = 20_251_007
_FIRST, _SECOND, _TINY = 0.9, 0.999, 1e-8

Net = dict[str, Float64]
"""``head`` [K, 2, d], ``inner`` [h, 2], ``shift`` [h], ``outer`` [2, h]."""


def fresh(dim: int) -> Net:
    """Return a net without arms, whose phi(w) is w."""
    rng = np.random.default_rng(_SEED)
    return {
        "head": np.zeros((0, 2, dim)),
        "inner": rng.normal(size=(HIDDEN, 2)),
        "shift": rng.normal(size=HIDDEN),
        "outer": np.zeros((2, HIDDEN)),
    }


def simplex(preference: Float64) -> tuple[Float64, Float64]:
    """Return (w_q, w_c) on the simplex, [n, 2], and their sum before, [n], of weights [n, 3].

    Where latency alone counts they are (1, 0), and their sum is 1.
    """
    total = preference[:, 0] + preference[:, 1]
    some = total > QUALITY_WEIGHT_FLOOR
    total = np.where(some, total, 1.0)
    return np.where(some[:, None], preference[:, :2] / total[:, None], [1.0, 0.0]), total


def embed(net: Mapping[str, NDArray[Any]], w: Float64) -> tuple[Float64, Float64]:
    """Return phi(w) = w + V tanh(W w + b), [n, 2], and its hidden units [n, h]."""
    hidden = np.tanh(w @ net["inner"].T + net["shift"])
    return w + hidden @ net["outer"].T, hidden


def logits(net: Mapping[str, NDArray[Any]], x: Float64, w: Float64, *, beta: float) -> Float64:
    """Return ``sum_j phi_j(w) U_aj.x / beta``, float64[n, K], of x[n, d] and w[n, 2]."""
    value = _values(net["head"], x)
    phi = embed(net, w)[0]
    found: Float64 = (phi[:, None, 0] * value[:, :, 0] + phi[:, None, 1] * value[:, :, 1]) / beta
    return found


def _values(head: Float64, x: Float64) -> Float64:
    arms, parts, dim = head.shape
    return (x @ head.reshape(arms * parts, dim).T).reshape(len(x), arms, parts)


def softmax(z: Float64) -> tuple[Float64, Float64]:
    """Return the law[n, K] of logits, and its logarithm; K at least 1."""
    z = z - z.max(axis=1, keepdims=True)
    p = np.exp(z)
    total = p.sum(axis=1, keepdims=True)
    return p / total, z - np.log(total)


@dataclass(frozen=True, slots=True)
class Lessons:
    """A minibatch of n rows, each judged under a preference of its own.

    Attributes
    ----------
    x : float64[n, d].
    w : float64[n, 2], on the simplex.
    reward : float64[n, K], what is believed of every arm under w.
    arms : int[n, m], arms that something was seen of; -1 is none.
    propensity : float64[n, m], with which each was drawn.
    surprise : float64[n, m], by how much each one's reward was above the belief.
    """

    x: Float64
    w: Float64
    reward: Float64
    arms: NDArray[np.intp]
    propensity: Float64
    surprise: Float64


def gradient(net: Net, seen: Lessons, *, beta: float, clip: float) -> Net:
    """Return the gradient of the entropy-regularised expected reward, to be climbed.

    Notes
    -----
    With ``rho = min(pi(a | x, w) / p, clip)`` held fixed, and r the rewards believed in, it is that
    of the mean of ``sum_k pi_k r_k + sum_m rho_m e_m log pi(a_m) + beta H(pi)``: REINFORCE with
    each arm's belief as its baseline, and the baselines' own expectation added back. Where rho is
    not clipped its mean is the same whatever is believed. On routing data its variance is no less
    than with one baseline for all arms, ``sum_k pi_k r_k``: the noise of single outcomes rules.
    """
    value = _values(net["head"], seen.x)
    phi, hidden = embed(net, seen.w)
    z = (phi[:, None, :] * value).sum(axis=2) / beta
    (pi, log_pi), rows = softmax(z), np.arange(len(z))
    worth = seen.reward - beta * log_pi
    g = pi * (worth - (pi * worth).sum(axis=1, keepdims=True))
    for arm, p, surprise in zip(seen.arms.T, seen.propensity.T, seen.surprise.T, strict=True):
        rho = np.minimum(pi[rows, arm] / np.maximum(p, _TINY), clip)
        pull = np.where(arm >= 0, rho * surprise, 0.0)
        g -= pull[:, None] * pi
        g[rows, arm] += pull
    g /= beta * len(g)
    to_phi = (g[:, :, None] * value).sum(axis=1)
    to_hidden = to_phi @ net["outer"] * (1.0 - hidden * hidden)
    outer = (g[:, :, None] * phi[:, None, :]).reshape(len(g), -1)
    return {
        "head": (outer.T @ seen.x).reshape(net["head"].shape),
        "inner": to_hidden.T @ seen.w,
        "shift": to_hidden.sum(axis=0),
        "outer": to_phi.T @ hidden,
    }


@dataclass(slots=True)
class Adam:
    """Mean and mean square of past gradients, and how many there were."""

    first: Net
    second: Net
    taken: int = 0

    @classmethod
    def of(cls, start: Net) -> Adam:
        """Return the optimiser of a net that has not been moved yet."""
        first, second = ({name: np.zeros_like(a) for name, a in start.items()} for _ in range(2))
        return cls(first, second)

    def grow(self) -> None:
        """Make room for the head of one more arm."""
        for moments in (self.first, self.second):
            head = moments["head"]
            moments["head"] = np.concatenate([head, np.zeros((1, *head.shape[1:]))])

    def climb(self, at: Net, found: Net, *, rate: float) -> None:
        """Move the net `at` in place, one step of size `rate` up the gradient `found`."""
        self.taken += 1
        size, square = rate / (1.0 - _FIRST**self.taken), 1.0 / (1.0 - _SECOND**self.taken)
        for name, g in found.items():
            m, v = self.first[name], self.second[name]
            m += (1.0 - _FIRST) * (g - m)
            v += (1.0 - _SECOND) * (g * g - v)
            at[name] += size * m / (np.sqrt(square * v) + _TINY)


def checked(prior: Mapping[str, NDArray[Any]], dim: int) -> tuple[Net, float]:
    """Return a copy of a pre-trained net, and the US dollars that counted as cost 1 for it.

    Raises
    ------
    ValueError
        Saying which array is missing, of another shape, or not finite.
    """
    h = HIDDEN
    shapes = {"head": (prior["arms"].size, 2, dim), "inner": (h, 2), "shift": (h,)}
    found = {}
    for name, shape in (shapes | {"outer": (2, h), "tau_cost": ()}).items():
        if name not in prior or prior[name].shape != shape:
            given = list(prior[name].shape) if name in prior else "nothing"
            raise ValueError(f"prior: {name} of shape {list(shape)}, not {given}")
        if prior[name].dtype.kind not in "fiu" or not np.isfinite(prior[name]).all():
            raise ValueError(f"prior: {name}: every number finite")
        found[name] = prior[name].astype(np.float64)
    tau = float(found.pop("tau_cost"))
    if tau <= 0.0:
        raise ValueError(f"prior: tau_cost: above 0, not {tau:g}")
    return found, tau

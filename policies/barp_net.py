"""The net of BaRP: logits of a prompt under a preference, and the gradient that trains them.

Nothing here knows arms by name. Everything is a function of plain float64 arrays, so that a fold
can take the steps and a test can compare them with other derivatives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.base import Float64, grown
from policies.params import checked_array
from policies.preference import QUALITY_WEIGHT_FLOOR

HIDDEN = 8
"""Hidden units h of the preference's MLP."""

_SEED = 20_251_007
_FIRST, _SECOND, _TINY = 0.9, 0.999, 1e-8

Net = dict[str, Float64]
"""``head`` [K, 2, d], ``inner`` [h, 2], ``shift`` [h], ``outer`` [2, h]."""


def fresh(dim: int) -> Net:
    """Return a net without arms, in which phi(w) is w.

    Parameters
    ----------
    dim : int
        Number of features d.

    Returns
    -------
    dict from str to float64 array
        See `Net`.
    """
    rng = np.random.default_rng(_SEED)
    return {
        "head": np.zeros((0, 2, dim)),
        "inner": rng.normal(size=(HIDDEN, 2)),
        "shift": rng.normal(size=HIDDEN),
        "outer": np.zeros((2, HIDDEN)),
    }


def simplex(preference: Float64) -> tuple[Float64, Float64]:
    """Return the weights of quality and cost on the simplex.

    Parameters
    ----------
    preference : float64[n, 3]
        Weights of (quality, cost, latency).

    Returns
    -------
    w : float64[n, 2]
        (w_q, w_c), of sum 1; (1, 0) where latency alone counts.
    total : float64[n]
        The sum before; 1 where latency alone counts.
    """
    total = preference[:, 0] + preference[:, 1]
    counts = total > QUALITY_WEIGHT_FLOOR
    total = np.where(counts, total, 1.0)
    return np.where(counts[:, None], preference[:, :2] / total[:, None], [1.0, 0.0]), total


def embed(net: Mapping[str, NDArray[Any]], w: Float64) -> tuple[Float64, Float64]:
    """Return the embedding of preferences, ``phi(w) = w + V tanh(W w + b)``.

    Parameters
    ----------
    net : mapping from str to array
        See `Net`.
    w : float64[n, 2]
        Preferences on the simplex.

    Returns
    -------
    phi : float64[n, 2]
        The embedding.
    hidden : float64[n, h]
        The hidden units.
    """
    hidden = np.tanh(w @ net["inner"].T + net["shift"])
    return w + hidden @ net["outer"].T, hidden


def logits(net: Mapping[str, NDArray[Any]], x: Float64, w: Float64, *, beta: float) -> Float64:
    """Return the logits ``sum_j phi_j(w) U_aj.x / beta``.

    Parameters
    ----------
    net : mapping from str to array
        See `Net`; U is its ``head``.
    x : float64[n, d]
        Features.
    w : float64[n, 2]
        Preferences on the simplex.
    beta : float
        Weight of entropy.

    Returns
    -------
    float64[n, K]
        A logit for every arm.
    """
    value = _values(net["head"], x)
    phi = embed(net, w)[0]
    z: Float64 = (phi[:, None, 0] * value[:, :, 0] + phi[:, None, 1] * value[:, :, 1]) / beta
    return z


def _values(head: Float64, x: Float64) -> Float64:
    arms, parts, dim = head.shape
    return (x @ head.reshape(arms * parts, dim).T).reshape(len(x), arms, parts)


def softmax(z: Float64) -> tuple[Float64, Float64]:
    """Return the law of logits, and its logarithm.

    Parameters
    ----------
    z : float64[n, K]
        Logits of at least one arm.

    Returns
    -------
    pi : float64[n, K]
        Probabilities.
    log_pi : float64[n, K]
        Their logarithms.
    """
    z = z - z.max(axis=1, keepdims=True)
    p = np.exp(z)
    total = p.sum(axis=1, keepdims=True)
    return p / total, z - np.log(total)


@dataclass(frozen=True, slots=True)
class Minibatch:
    """Training data of n rows, each with its own preference.

    Attributes
    ----------
    x : float64[n, d]
        Features.
    w : float64[n, 2]
        Preferences on the simplex.
    reward : float64[n, K]
        Expected reward of every arm under w, the baseline.
    arms : int[n, m]
        Arms that were observed; -1 for none.
    propensity : float64[n, m]
        Probability with which each of them was drawn.
    surprise : float64[n, m]
        Observed minus expected reward of each of them.
    """

    x: Float64
    w: Float64
    reward: Float64
    arms: NDArray[np.intp]
    propensity: Float64
    surprise: Float64


def gradient(net: Net, minibatch: Minibatch, *, beta: float, clip: float) -> Net:
    """Return the gradient of the entropy-regularised expected reward, which is maximised.

    Parameters
    ----------
    net : dict from str to float64 array
        See `Net`.
    minibatch : Minibatch
        What was observed and expected.
    beta : float
        Weight of entropy.
    clip : float
        Largest importance weight.

    Returns
    -------
    dict from str to float64 array
        A gradient for every array of the net.

    Notes
    -----
    With the weight ``rho = min(pi(a | x, w) / p, clip)`` held fixed, expected rewards r and
    surprises e, it is the gradient of the mean of
    ``sum_k pi_k r_k + sum_m rho_m e_m log pi(a_m) + beta H(pi)``: REINFORCE with each arm's
    expected reward as its baseline, and the expectation of the baselines added back. Where rho is
    not clipped, its mean does not depend on the baselines. On routing data its variance is no
    smaller than with one baseline for all arms, ``sum_k pi_k r_k``: the noise of single outcomes
    dominates.
    """
    value = _values(net["head"], minibatch.x)
    phi, hidden = embed(net, minibatch.w)
    z = (phi[:, None, :] * value).sum(axis=2) / beta
    (pi, log_pi), rows = softmax(z), np.arange(len(z))
    worth = minibatch.reward - beta * log_pi
    g = pi * (worth - (pi * worth).sum(axis=1, keepdims=True))
    observed = minibatch.arms.T, minibatch.propensity.T, minibatch.surprise.T
    for arm, p, surprise in zip(*observed, strict=True):
        rho = np.minimum(pi[rows, arm] / np.maximum(p, _TINY), clip)
        pull = np.where(arm >= 0, rho * surprise, 0.0)
        g -= pull[:, None] * pi
        g[rows, arm] += pull
    g /= beta * len(g)
    to_phi = (g[:, :, None] * value).sum(axis=1)
    to_hidden = to_phi @ net["outer"] * (1.0 - hidden * hidden)
    outer = (g[:, :, None] * phi[:, None, :]).reshape(len(g), -1)
    return {
        "head": (outer.T @ minibatch.x).reshape(net["head"].shape),
        "inner": to_hidden.T @ minibatch.w,
        "shift": to_hidden.sum(axis=0),
        "outer": to_phi.T @ hidden,
    }


@dataclass(slots=True)
class Adam:
    """The optimiser Adam, for a net that grows with every arm.

    Attributes
    ----------
    first : dict from str to float64 array
        Decayed mean of past gradients.
    second : dict from str to float64 array
        Decayed mean square of past gradients.
    taken : int
        Number of steps so far.
    """

    first: Net
    second: Net
    taken: int = 0

    @classmethod
    def of(cls, start: Net) -> Adam:
        """Return the optimiser of a net before its first step.

        Parameters
        ----------
        start : dict from str to float64 array
            The net.

        Returns
        -------
        Adam
            With zeros of the same shapes.
        """
        first, second = ({name: np.zeros_like(a) for name, a in start.items()} for _ in range(2))
        return cls(first, second)

    def grow(self) -> None:
        """Make room for the head of one more arm."""
        for moments in (self.first, self.second):
            moments["head"] = grown(moments["head"])

    def climb(self, net: Net, gradient: Net, *, rate: float) -> None:
        """Change a net in place by one step up a gradient.

        Parameters
        ----------
        net : dict from str to float64 array
            The net.
        gradient : dict from str to float64 array
            The gradient of what is maximised.
        rate : float
            Step size.
        """
        self.taken += 1
        size, square = rate / (1.0 - _FIRST**self.taken), 1.0 / (1.0 - _SECOND**self.taken)
        for name, g in gradient.items():
            m, v = self.first[name], self.second[name]
            m += (1.0 - _FIRST) * (g - m)
            v += (1.0 - _SECOND) * (g * g - v)
            net[name] += size * m / (np.sqrt(square * v) + _TINY)


def checked(prior: Mapping[str, NDArray[Any]], dim: int) -> tuple[Net, float]:
    """Return a pre-trained net and the scale of its costs.

    Parameters
    ----------
    prior : mapping from str to array
        ``arms`` str[M], the arrays of `Net` for M arms, and the number ``tau_cost``.
    dim : int
        Number of features d.

    Returns
    -------
    net : dict from str to float64 array
        A copy.
    tau_cost_usd : float
        US dollars that counted as cost 1.

    Raises
    ------
    ValueError
        For an array that is missing, of another shape, or not finite.
    """
    h = HIDDEN
    shapes: dict[str, tuple[int, ...]] = {"head": (prior["arms"].size, 2, dim), "inner": (h, 2)}
    shapes |= {"shift": (h,), "outer": (2, h), "tau_cost": ()}
    net = {name: checked_array(prior, name, shape) for name, shape in shapes.items()}
    tau_cost_usd = float(net.pop("tau_cost"))
    if tau_cost_usd <= 0.0:
        raise ValueError(f"prior: tau_cost: above 0, not {tau_cost_usd:g}")
    return net, tau_cost_usd

"""Fit PILOT's prior to pairwise preferences: where prompts lie, and what models are good at.

First a linear map of the features is taught by triplets: prompts that the same model won move
together, and away from prompts where it lost to a weaker one. Then, on the frozen map, every model
gets a direction so that cosines explain who won (Bradley-Terry). Pairs of prompts that were kept
out say how much of that to believe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditroute.fitting.autograd import check_limits, one_thread
from banditroute.fitting.pairs import Pairs
from policies.base import Arrays

Float64 = NDArray[np.float64]
Integers = NDArray[np.intp]

_BATCH = 256
_STEPS = 200
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class PairwiseOptions:
    """How to fit; what the published description does not give is chosen here.

    Attributes
    ----------
    dims : coordinates of a mapped prompt; the last one is the same for all prompts, so that a
        model may be better everywhere.
    margin : of the triplet loss, in cosines.
    epochs : passes over the prompts that each model won; 0 keeps the principal axes.
    rate : step size of Adam.
    anchor : weight of the map's squared distance from where it started, the principal axes.
    shrinkage : weight of the squared distance of models' log-odds vectors from their mean.
    folds : parts of the prompts that are kept out in turn.
    seed : of triplets, folds and the models' first directions.
    """

    dims: int = 16
    margin: float = 0.2
    epochs: int = 20
    rate: float = 0.01
    anchor: float = 0.1
    shrinkage: float = 0.01
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        check_limits(self, _LIMITS)


_LIMITS = {
    "dims": (3, 1024),
    "margin": (0.0, 2.0),
    "epochs": (0, 100_000),
    "rate": (1e-6, 1.0),
    "anchor": (0.0, 1e6),
    "shrinkage": (0.0, 1e6),
    "folds": (2, 100),
    "seed": (0, 2**32 - 1),
}


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was fitted, and how well it predicts prompts that it was not fitted to.

    Attributes
    ----------
    arrays : what `policies.pilot.Pilot` adopts.
    loss : mean log loss of the kept-out pairs; that of knowing nothing is 0.693.
    plain : the same from models' levels alone, as if prompts were all alike.
    """

    arrays: Arrays
    loss: float
    plain: float


def fit(
    pairs: Pairs, x: Float64, options: PairwiseOptions, *, tick: Callable[[], None] = lambda: None
) -> Fitted:
    """Fit the prior.

    Parameters
    ----------
    pairs : comparisons on at least two different prompts.
    x : float64[Q, d], features of the prompts; the last one is the intercept.
    tick : called `rounds` times, or less often where there are fewer prompts than folds.

    Raises
    ------
    ImportError
        Without torch; the message says what to install.
    """
    with one_thread() as torch:
        levels, contexts, rows, won = [], [], [], []
        for inside, outside in _parts(pairs, options):
            w, v, t = _fit(torch, inside, x, options, tick)
            by_level, by_context = _split(outside, inside, x, w, v / t)
            levels.append(by_level)
            contexts.append(by_context)
            rows.append(outside.row)
            won.append(outside.won)
        w, v, t = _fit(torch, pairs, x, options, tick)
    parts = np.column_stack([np.concatenate(levels), np.concatenate(contexts)])
    held = np.concatenate(won)
    scale, support, context = calibrate(parts, held, np.concatenate(rows))
    arrays: Arrays = {
        "arms": np.array(pairs.models, dtype=np.str_),
        "projection": w,
        "center": _center(pairs, x, w),
        "embeddings": v,
        "temperature": np.array(t / scale),
        "support": np.array(support),
        "context": np.array(context),
        "accuracy": accuracy(pairs, _log_odds(pairs, x, w, v)),
    }
    level, added = scale * parts.T
    return Fitted(arrays, loss=_loss(level + context * added, held), plain=_loss(level, held))


def rounds(options: PairwiseOptions) -> int:
    """Return how often `fit` calls `tick` at most."""
    return (options.folds + 1) * (options.epochs + 1)


def _parts(pairs: Pairs, options: PairwiseOptions) -> Iterator[tuple[Pairs, Pairs]]:
    """Yield (pairs to fit, pairs kept out), cut by prompts."""
    used, at = np.unique(pairs.row, return_inverse=True)
    folds = min(options.folds, len(used))
    part = np.random.default_rng([options.seed, 0]).permutation(len(used))[at] % folds
    for k in range(folds):
        yield pairs.take(part != k), pairs.take(part == k)


def _fit(
    torch: Any, pairs: Pairs, x: Float64, options: PairwiseOptions, tick: Callable[[], None]
) -> tuple[Float64, Float64, float]:
    """Return the map W[m, d], directions v[M, m] and the temperature."""
    w = _teach_map(torch, pairs, x, options, tick)
    v, temperature = _teach_models(torch, pairs, place(x[pairs.row], w), options)
    tick()
    return w, v, temperature


def place(x: Float64, w: Float64) -> Float64:
    """Return W x / |W x| for x[n, d]."""
    psi: Float64 = x @ w.T
    psi /= np.maximum(np.linalg.norm(psi, axis=1, keepdims=True), _TINY)
    return psi


def _teach_map(
    torch: Any, pairs: Pairs, x: Float64, options: PairwiseOptions, tick: Callable[[], None]
) -> Float64:
    used = np.unique(pairs.row)
    start = _axes(x[used], options.dims - 1)
    rows, first = torch.from_numpy(x), torch.from_numpy(start)
    w = first.clone().requires_grad_()
    adam = torch.optim.Adam([w], lr=options.rate)
    choices, rng = candidates(pairs), np.random.default_rng([options.seed, 1])
    size = max(float((start**2).sum()), _TINY)
    for _ in range(options.epochs):
        triplets = torch.from_numpy(draw_triplets(choices, rng))
        for batch in triplets.split(_BATCH):
            psi = torch.nn.functional.normalize(rows[batch] @ w.T, dim=-1)
            loss = triplet_loss(torch, psi, options.margin)
            loss = loss + options.anchor / size * ((w - first) ** 2).sum()
            adam.zero_grad()
            loss.backward()
            adam.step()
        tick()
    taught: Float64 = w.detach().numpy()
    taught /= max(float(np.sqrt(((x[used] @ taught.T) ** 2).sum(axis=1).mean())), _TINY)
    same = np.zeros((1, x.shape[1]))
    same[0, -1] = 1.0
    return np.concatenate([taught, same])


def _axes(x: Float64, count: int) -> Float64:
    """Return the map[count, d] to principal coordinates of x[n, d], of mean square norm 1."""
    inner, mean = x[:, :-1] - x[:, :-1].mean(axis=0), x[:, :-1].mean(axis=0)
    axes = np.linalg.eigh(inner.T @ inner)[1][:, ::-1][:, :count].T
    axes = np.concatenate([axes, np.zeros((count - len(axes), axes.shape[1]))])
    axes /= max(float(np.sqrt(((inner @ axes.T) ** 2).sum(axis=1).mean())), _TINY)
    return np.column_stack([axes, -axes @ mean])


def candidates(pairs: Pairs) -> list[tuple[Integers, Integers]]:
    """Return (prompts that it won, hard negatives) of each model that has both.

    A model won a prompt where it won more comparisons than it lost. A hard negative is a prompt
    where it lost more, and to a model with a smaller share of wins.
    """
    shape = len(pairs.prompts), len(pairs.models)
    net, upset = np.zeros(shape), np.zeros(shape, dtype=np.bool_)
    strength = pairs.strength()
    for mine, theirs, sign in ((pairs.a, pairs.b, 1.0), (pairs.b, pairs.a, -1.0)):
        gain = sign * (2.0 * pairs.won - 1.0)
        np.add.at(net, (pairs.row, mine), gain)
        lost = (gain < 0.0) & (strength[theirs] < strength[mine])
        upset[pairs.row[lost], mine[lost]] = True
    found = []
    for k in range(shape[1]):
        won, hard = np.flatnonzero(net[:, k] > 0.0), np.flatnonzero(upset[:, k] & (net[:, k] < 0.0))
        if len(won) > 1 and len(hard):
            found.append((won, hard))
    return found


def draw_triplets(
    choices: list[tuple[Integers, Integers]], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return int64[n, 3] of (anchor, positive, negative), shuffled; each won prompt leads once."""
    drawn = [np.zeros((0, 3), dtype=np.int64)]
    for won, hard in choices:
        step = rng.integers(1, len(won), size=len(won))
        other = won[(np.arange(len(won)) + step) % len(won)]
        drawn.append(np.column_stack([won, other, rng.choice(hard, size=len(won))]))
    return rng.permutation(np.concatenate(drawn))


def triplet_loss(torch: Any, psi: Any, margin: float) -> Any:
    """Return mean max(0, m + cos(anchor, negative) - cos(anchor, positive)), psi[n, 3, m] unit."""
    anchor, positive, negative = psi.unbind(dim=1)
    gap = (anchor * negative).sum(dim=1) - (anchor * positive).sum(dim=1)
    return torch.relu(margin + gap).mean()


def _teach_models(
    torch: Any, pairs: Pairs, psi: Float64, options: PairwiseOptions
) -> tuple[Float64, float]:
    rng = np.random.default_rng([options.seed, 2])
    v = torch.from_numpy(rng.normal(size=(len(pairs.models), psi.shape[1]))).requires_grad_()
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    at, won = torch.from_numpy(psi), torch.from_numpy(pairs.won)
    a, b = torch.from_numpy(pairs.a), torch.from_numpy(pairs.b)
    search = torch.optim.LBFGS([v, log_t], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Any:
        search.zero_grad()
        total = preference_loss(torch, at, v, log_t, a, b, won, options.shrinkage)
        total.backward()
        return total

    search.step(loss)
    unit = torch.nn.functional.normalize(v, dim=1).detach().numpy()
    return unit, float(log_t.detach().exp())


def preference_loss(
    torch: Any, psi: Any, v: Any, log_t: Any, a: Any, b: Any, won: Any, shrinkage: float
) -> Any:
    """Return the mean log loss of ``P(a beats b) = sigma(psi.(v_a - v_b) / T)``, and shrinkage.

    Without a temperature, cosines would hold every probability within 0.119 and 0.881.
    """
    scaled = torch.nn.functional.normalize(v, dim=1) / log_t.exp()
    log_odds = (psi * (scaled[a] - scaled[b])).sum(dim=1)
    spread = ((scaled - scaled.mean(dim=0)) ** 2).sum(dim=1).mean()
    cross = torch.nn.functional.binary_cross_entropy_with_logits(log_odds, won)
    return cross + shrinkage * spread


def _center(pairs: Pairs, x: Float64, w: Float64) -> Float64:
    center: Float64 = place(x[np.unique(pairs.row)], w).mean(axis=0)
    return center


def _split(
    outside: Pairs, inside: Pairs, x: Float64, w: Float64, scaled: Float64
) -> tuple[Float64, Float64]:
    """Return the log-odds of pairs from models' levels, and what their prompts add to them."""
    level = (scaled[outside.a] - scaled[outside.b]) @ _center(inside, x, w)
    return level, _log_odds(outside, x, w, scaled) - level


def _log_odds(pairs: Pairs, x: Float64, w: Float64, scaled: Float64) -> Float64:
    odds: Float64 = (place(x[pairs.row], w) * (scaled[pairs.a] - scaled[pairs.b])).sum(axis=1)
    return odds


def calibrate(parts: Float64, won: Float64, rows: Integers) -> tuple[float, float, float]:
    """Return the scale of kept-out log-odds, and how far to believe levels and context, in [0, 1].

    Parameters
    ----------
    parts : float64[n, 2], log-odds from levels and from context.
    won : float64[n].
    rows : int[n], prompts; pairs of one prompt are one observation.

    Notes
    -----
    Logistic regression of `won` on both parts, with a penalty of half the squared coefficients.
    A coefficient counts as far as it exceeds two of its standard errors.
    """
    at = np.zeros(2)
    for _ in range(_STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(parts @ at, -50.0, 50.0)))
        slope = parts.T @ (won - p) - at
        curve = parts.T @ (parts * (p * (1.0 - p))[:, None]) + np.eye(2)
        step = np.linalg.solve(curve, slope)
        # A full step from far away may overshoot.
        at = at + step / max(1.0, float(np.abs(step).max()))
    total = np.zeros((int(rows.max(initial=-1)) + 1, 2))
    np.add.at(total, rows, parts * (won - p)[:, None])
    inverse = np.linalg.inv(curve)
    sure = at - _ERRORS * np.sqrt(np.diagonal(inverse @ total.T @ total @ inverse))
    scale = max(float(at[0]), _LEAST_SCALE)
    support, context = np.clip(sure / scale, 0.0, 1.0)
    return scale, float(support), float(context)


_LEAST_SCALE, _ERRORS = 0.01, 2.0


def _loss(log_odds: Float64, won: Float64) -> float:
    return float((np.logaddexp(0.0, log_odds) - won * log_odds).mean())


def accuracy(pairs: Pairs, log_odds: Float64) -> Float64:
    """Return the share[M] of each model's decided comparisons whose winner log-odds name."""
    size, decided = len(pairs.models), pairs.won != 0.5
    hit = (decided & ((log_odds > 0.0) == (pairs.won > 0.5))).astype(np.float64)
    right, count = np.full(size, 0.5), np.ones(size)
    for side in (pairs.a, pairs.b):
        right += np.bincount(side, hit, size)
        count += np.bincount(side, decided, size)
    share: Float64 = right / count
    return share

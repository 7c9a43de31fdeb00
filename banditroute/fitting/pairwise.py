"""Fit PILOT's prior to pairwise preferences: a map of prompts, and a direction for each model.

First a linear map of the features is fitted to triplets: prompts that the same model won move
together, and away from prompts where it lost to a weaker model. Then, on the frozen map, every
model gets a direction so that cosines explain which answer won (Bradley-Terry). Pairs that were
kept out of the fit, by prompt, decide how strong the prior is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditroute.fitting.autograd import one_thread
from banditroute.fitting.pairs import Pairs
from policies.base import Arrays
from policies.params import between

Float64 = NDArray[np.float64]
Integers = NDArray[np.intp]

_BATCH = 256
_STEPS = 200
_TINY = 1e-12
_MIN_SCALE = 0.01
_STANDARD_ERRORS = 2.0
"""Coefficients of the calibration count as far as they exceed so many standard errors."""


@dataclass(frozen=True, slots=True)
class PairwiseOptions:
    """How to fit; the published description leaves some of these open.

    Attributes
    ----------
    dims : int
        Coordinates of a mapped prompt. The last one is the same for all prompts, so that a model
        may be better everywhere.
    margin : float
        Margin of the triplet loss, in cosines.
    epochs : int
        Passes over the prompts that each model won; 0 keeps the principal axes.
    rate : float
        Step size of Adam.
    anchor : float
        Weight of the map's squared distance from the principal axes, where it starts.
    shrinkage : float
        Weight of the squared distance of models' log-odds vectors from their mean.
    folds : int
        Parts of the prompts that are kept out in turn.
    seed : int
        Of triplets, folds and the models' first directions.
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
        """Raise a ValueError that begins with the name of an option out of range."""
        between(3, 1024, dims=self.dims)
        between(0.0, 2.0, margin=self.margin)
        between(0, 100_000, epochs=self.epochs)
        between(1e-6, 1.0, rate=self.rate)
        between(0.0, 1e6, anchor=self.anchor, shrinkage=self.shrinkage)
        between(2, 100, folds=self.folds)
        between(0, 2**32 - 1, seed=self.seed)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted prior, and how well it predicts prompts that it was not fitted to.

    Attributes
    ----------
    arrays : Arrays
        The arrays of a prior of kind "pilot", see `policies.pilot.Pilot`.
    loss : float
        Mean log loss of the kept-out pairs; a coin has 0.693.
    loss_of_levels : float
        The same loss from models' levels alone, as if all prompts were alike.
    """

    arrays: Arrays
    loss: float
    loss_of_levels: float


def fit(
    pairs: Pairs, x: Float64, options: PairwiseOptions, *, tick: Callable[[], None] = lambda: None
) -> Fitted:
    """Fit the prior.

    Parameters
    ----------
    pairs : Pairs
        Comparisons on at least two different prompts.
    x : float64[Q, d]
        Features of the prompts; the last one is the intercept.
    options : PairwiseOptions
        How to fit.
    tick : callable
        Called `rounds` times, or less often where there are fewer prompts than folds.

    Returns
    -------
    Fitted
        The prior, fitted to all pairs.

    Raises
    ------
    ImportError
        Without torch; the message says what to install.
    """
    with one_thread() as torch:
        kept_out = []
        for inside, outside in _folds(pairs, options):
            w, v, t = _fit(torch, inside, x, options, tick)
            scaled = v / t
            # The log-odds of models' levels, and what prompts add to them.
            level = (scaled[outside.a] - scaled[outside.b]) @ _center(inside, x, w)
            added = _log_odds(outside, x, w, scaled) - level
            kept_out.append((level, added, outside.row, outside.won))
        w, v, t = _fit(torch, pairs, x, options, tick)
    levels, contexts, rows, won = map(np.concatenate, zip(*kept_out, strict=True))
    parts = np.column_stack([levels, contexts])
    scale, support, context = calibrate(parts, won, rows)
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
    loss, loss_of_levels = _log_loss(level + context * added, won), _log_loss(level, won)
    return Fitted(arrays, loss=loss, loss_of_levels=loss_of_levels)


def rounds(options: PairwiseOptions) -> int:
    """Return how often `fit` calls `tick` at most."""
    return (options.folds + 1) * (options.epochs + 1)


def _folds(pairs: Pairs, options: PairwiseOptions) -> Iterator[tuple[Pairs, Pairs]]:
    """Yield (pairs to fit, pairs kept out), split by prompts."""
    used, index = np.unique(pairs.row, return_inverse=True)
    count = min(options.folds, len(used))
    fold = np.random.default_rng([options.seed, 0]).permutation(len(used))[index] % count
    for k in range(count):
        yield pairs.take(fold != k), pairs.take(fold == k)


def _fit(
    torch: Any, pairs: Pairs, x: Float64, options: PairwiseOptions, tick: Callable[[], None]
) -> tuple[Float64, Float64, float]:
    """Return the map W[m, d], directions v[M, m] and the temperature."""
    w = _fit_map(torch, pairs, x, options, tick)
    v, temperature = _fit_models(torch, pairs, map_prompts(x[pairs.row], w), options)
    tick()
    return w, v, temperature


def map_prompts(x: Float64, w: Float64) -> Float64:
    """Return mapped prompts, ``W x / |W x|``.

    Parameters
    ----------
    x : float64[n, d]
        Features of prompts.
    w : float64[m, d]
        The map.

    Returns
    -------
    float64[n, m]
        Of unit norm.
    """
    psi: Float64 = x @ w.T
    psi /= np.maximum(np.linalg.norm(psi, axis=1, keepdims=True), _TINY)
    return psi


def _fit_map(
    torch: Any, pairs: Pairs, x: Float64, options: PairwiseOptions, tick: Callable[[], None]
) -> Float64:
    used = np.unique(pairs.row)
    axes = _principal_axes(x[used], options.dims - 1)
    rows, start = torch.from_numpy(x), torch.from_numpy(axes)
    w = start.clone().requires_grad_()
    adam = torch.optim.Adam([w], lr=options.rate)
    candidates, rng = triplet_candidates(pairs), np.random.default_rng([options.seed, 1])
    size = max(float((axes**2).sum()), _TINY)
    for _ in range(options.epochs):
        triplets = torch.from_numpy(draw_triplets(candidates, rng))
        for batch in triplets.split(_BATCH):
            psi = torch.nn.functional.normalize(rows[batch] @ w.T, dim=-1)
            loss = triplet_loss(torch, psi, options.margin)
            loss = loss + options.anchor / size * ((w - start) ** 2).sum()
            adam.zero_grad()
            loss.backward()
            adam.step()
        tick()
    fitted: Float64 = w.detach().numpy()
    fitted /= max(float(np.sqrt(((x[used] @ fitted.T) ** 2).sum(axis=1).mean())), _TINY)
    intercept = np.zeros((1, x.shape[1]))
    intercept[0, -1] = 1.0
    return np.concatenate([fitted, intercept])


def _principal_axes(x: Float64, count: int) -> Float64:
    """Return the map[count, d] to principal coordinates of x[n, d], of mean square norm 1."""
    centred, mean = x[:, :-1] - x[:, :-1].mean(axis=0), x[:, :-1].mean(axis=0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :count].T
    axes = np.concatenate([axes, np.zeros((count - len(axes), axes.shape[1]))])
    axes /= max(float(np.sqrt(((centred @ axes.T) ** 2).sum(axis=1).mean())), _TINY)
    return np.column_stack([axes, -axes @ mean])


def triplet_candidates(pairs: Pairs) -> list[tuple[Integers, Integers]]:
    """Return what triplets are drawn from.

    A model won a prompt if it won more comparisons on it than it lost. A hard negative is a prompt
    where it lost more, and lost to a model with a smaller share of wins.

    Parameters
    ----------
    pairs : Pairs
        Comparisons.

    Returns
    -------
    list of (int[m], int[k])
        Prompts that it won and hard negatives, of each model that has two of the former and one of
        the latter.
    """
    shape = len(pairs.prompts), len(pairs.models)
    net_wins, upset = np.zeros(shape), np.zeros(shape, dtype=np.bool_)
    strength = pairs.strength()
    for model, opponent, sign in ((pairs.a, pairs.b, 1.0), (pairs.b, pairs.a, -1.0)):
        gain = sign * (2.0 * pairs.won - 1.0)
        np.add.at(net_wins, (pairs.row, model), gain)
        lost = (gain < 0.0) & (strength[opponent] < strength[model])
        upset[pairs.row[lost], model[lost]] = True
    candidates = []
    for net, upsets in zip(net_wins.T, upset.T, strict=True):
        won, hard = np.flatnonzero(net > 0.0), np.flatnonzero(upsets & (net < 0.0))
        if len(won) > 1 and len(hard):
            candidates.append((won, hard))
    return candidates


def draw_triplets(
    candidates: list[tuple[Integers, Integers]], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw a triplet for each prompt that a model won.

    Parameters
    ----------
    candidates : list of (int[m], int[k])
        See `triplet_candidates`.
    rng : numpy.random.Generator
        Of all draws.

    Returns
    -------
    int64[n, 3]
        Prompts (anchor, positive, negative), shuffled; each prompt that a model won is an anchor.
    """
    triplets = [np.zeros((0, 3), dtype=np.int64)]
    for won, hard in candidates:
        step = rng.integers(1, len(won), size=len(won))
        other = won[(np.arange(len(won)) + step) % len(won)]
        triplets.append(np.column_stack([won, other, rng.choice(hard, size=len(won))]))
    return rng.permutation(np.concatenate(triplets))


def triplet_loss(torch: Any, psi: Any, margin: float) -> Any:
    """Return the mean of ``max(0, margin + cos(anchor, negative) - cos(anchor, positive))``.

    Parameters
    ----------
    torch : module
        See `one_thread`.
    psi : Tensor[n, 3, m]
        Mapped prompts of unit norm.
    margin : float
        In cosines.

    Returns
    -------
    Tensor
        A scalar.
    """
    anchor, positive, negative = psi.unbind(dim=1)
    gap = (anchor * negative).sum(dim=1) - (anchor * positive).sum(dim=1)
    return torch.relu(margin + gap).mean()


def _fit_models(
    torch: Any, pairs: Pairs, psi: Float64, options: PairwiseOptions
) -> tuple[Float64, float]:
    rng = np.random.default_rng([options.seed, 2])
    v = torch.from_numpy(rng.normal(size=(len(pairs.models), psi.shape[1]))).requires_grad_()
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    prompts, won = torch.from_numpy(psi), torch.from_numpy(pairs.won)
    a, b = torch.from_numpy(pairs.a), torch.from_numpy(pairs.b)
    search = torch.optim.LBFGS([v, log_t], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Any:
        search.zero_grad()
        total = preference_loss(torch, prompts, v, log_t, a, b, won, options.shrinkage)
        total.backward()
        return total

    search.step(loss)
    unit = torch.nn.functional.normalize(v, dim=1).detach().numpy()
    return unit, float(log_t.detach().exp())


def preference_loss(
    torch: Any, psi: Any, v: Any, log_t: Any, a: Any, b: Any, won: Any, shrinkage: float
) -> Any:
    """Return the mean log loss of ``P(a beats b) = sigma(psi.(v_a - v_b) / T)``, plus shrinkage.

    Without the temperature T, cosines would keep every probability between 0.119 and 0.881.

    Parameters
    ----------
    torch : module
        See `one_thread`.
    psi : Tensor[n, m]
        Mapped prompts of unit norm.
    v : Tensor[M, m]
        Directions of models, of any norm.
    log_t : Tensor
        Logarithm of the temperature, a scalar.
    a : Tensor[n]
        First models.
    b : Tensor[n]
        Second models.
    won : Tensor[n]
        See `Pairs.won`.
    shrinkage : float
        See `PairwiseOptions`.

    Returns
    -------
    Tensor
        A scalar.
    """
    scaled = torch.nn.functional.normalize(v, dim=1) / log_t.exp()
    log_odds = (psi * (scaled[a] - scaled[b])).sum(dim=1)
    spread = ((scaled - scaled.mean(dim=0)) ** 2).sum(dim=1).mean()
    cross = torch.nn.functional.binary_cross_entropy_with_logits(log_odds, won)
    return cross + shrinkage * spread


def _center(pairs: Pairs, x: Float64, w: Float64) -> Float64:
    center: Float64 = map_prompts(x[np.unique(pairs.row)], w).mean(axis=0)
    return center


def _log_odds(pairs: Pairs, x: Float64, w: Float64, scaled: Float64) -> Float64:
    odds: Float64 = (map_prompts(x[pairs.row], w) * (scaled[pairs.a] - scaled[pairs.b])).sum(axis=1)
    return odds


def calibrate(parts: Float64, won: Float64, rows: Integers) -> tuple[float, float, float]:
    """Return how to scale the prior by what it predicts of kept-out pairs.

    Parameters
    ----------
    parts : float64[n, 2]
        Log-odds from levels and from context.
    won : float64[n]
        See `Pairs.won`.
    rows : int[n]
        Prompts; all pairs of a prompt are one observation.

    Returns
    -------
    scale : float
        Factor of the log-odds.
    support : float
        Weight of the models' levels, in [0, 1].
    context : float
        Weight of the context, in [0, 1].

    Notes
    -----
    Logistic regression of `won` on both parts, with a penalty of half the squared coefficients.
    A coefficient counts as far as it exceeds two of its standard errors, which are robust to
    correlation within a prompt.
    """
    coefficients = np.zeros(2)
    for _ in range(_STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(parts @ coefficients, -50.0, 50.0)))
        gradient = parts.T @ (won - p) - coefficients
        hessian = parts.T @ (parts * (p * (1.0 - p))[:, None]) + np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        # A full step from far away may overshoot.
        coefficients = coefficients + step / max(1.0, float(np.abs(step).max()))
    of_prompt = np.zeros((int(rows.max(initial=-1)) + 1, 2))
    np.add.at(of_prompt, rows, parts * (won - p)[:, None])
    inverse = np.linalg.inv(hessian)
    errors = np.sqrt(np.diagonal(inverse @ of_prompt.T @ of_prompt @ inverse))
    scale = max(float(coefficients[0]), _MIN_SCALE)
    support, context = np.clip((coefficients - _STANDARD_ERRORS * errors) / scale, 0.0, 1.0)
    return scale, float(support), float(context)


def _log_loss(log_odds: Float64, won: Float64) -> float:
    return float((np.logaddexp(0.0, log_odds) - won * log_odds).mean())


def accuracy(pairs: Pairs, log_odds: Float64) -> Float64:
    """Return the share of each model's comparisons that log-odds predict; ties are left out.

    Parameters
    ----------
    pairs : Pairs
        n comparisons.
    log_odds : float64[n]
        Above 0 where the first model should win.

    Returns
    -------
    float64[M]
        One more comparison is counted as half right.
    """
    size, decided = len(pairs.models), pairs.won != 0.5
    hit = (decided & ((log_odds > 0.0) == (pairs.won > 0.5))).astype(np.float64)
    right, count = np.full(size, 0.5), np.ones(size)
    for side in (pairs.a, pairs.b):
        right += np.bincount(side, hit, size)
        count += np.bincount(side, decided, size)
    share: Float64 = right / count
    return share

"""The supervised limit: what linear features can give when every label is known.

Ridge regressions of quality and cost learn from all models' answers to the learned rows, where a
router sees one answer per prompt, and then choose on the scored rows. It is the level to judge a
policy's gain over the zero router by, and must never be fed to one. Nothing here is learned online.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.data.dataset import Dataset

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

PRECISIONS = tuple(float(p) for p in np.geomspace(1.0, 1e4, 13))
FOLDS = 5
_CHEAPEST = 1e-9
_STEPS = 60


@dataclass(frozen=True, slots=True)
class Supervised:
    """Predictions for the scored rows, and the labels that choices are judged by.

    Attributes
    ----------
    predicted_quality, predicted_cost : float64[n, K], what choices are made from.
    quality, cost : float64[n, K], the labels; cost in US dollars per request.
    """

    predicted_quality: Float64
    predicted_cost: Float64
    quality: Float64
    cost: Float64

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        features: Float32,
        learned: NDArray[np.intp],
        scored: NDArray[np.intp],
    ) -> Supervised:
        """Fit on the learned rows and predict the scored ones.

        Parameters
        ----------
        dataset : complete data, without NaN.
        features : float32[n, d]; the last one is the intercept.
        learned, scored : rows, in any random order; neither may be empty.
        """
        x, new = features[learned].astype(np.float64), features[scored].astype(np.float64)
        cost = dataset.cost_usd[learned]
        log_cost = np.log(np.maximum(cost, _CHEAPEST))
        weights = ridge(x, log_cost)
        # The exponential of a mean logarithm is below the mean: one factor per model corrects it.
        smearing = cost.mean(axis=0) / np.exp(x @ weights).mean(axis=0)
        return cls(
            predicted_quality=new @ ridge(x, dataset.quality[learned]),
            predicted_cost=np.exp(new @ weights) * smearing,
            quality=dataset.quality[scored],
            cost=dataset.cost_usd[scored],
        )

    @classmethod
    def left_out(cls, dataset: Dataset, features: Float32, rows: NDArray[np.intp]) -> Supervised:
        """Predict rows from each other: every part of them from all other parts.

        Parameters
        ----------
        dataset, features : as for `of`.
        rows : in any random order, none of them twice.
        """
        parts = np.array_split(rows, min(FOLDS, len(rows)))
        made = [
            cls.of(dataset, features, np.concatenate([*parts[:k], *parts[k + 1 :]]), part)
            for k, part in enumerate(parts)
        ]
        return cls(
            predicted_quality=np.concatenate([one.predicted_quality for one in made]),
            predicted_cost=np.concatenate([one.predicted_cost for one in made]),
            quality=dataset.quality[rows],
            cost=dataset.cost_usd[rows],
        )

    @classmethod
    def oracle(cls, quality: Float64, cost: Float64) -> Supervised:
        """Return the one whose predictions are the labels quality[n, K] and cost[n, K]."""
        return cls(predicted_quality=quality, predicted_cost=cost, quality=quality, cost=cost)

    def at_preference(self, quality: float, cost: float, *, tau_cost: float) -> tuple[float, float]:
        """Return mean (quality, cost) of the choices of highest predicted utility.

        Parameters
        ----------
        quality, cost : weights.
        tau_cost : US dollars that count as cost 1, as does all above.
        """
        fine = np.minimum(self.predicted_cost / tau_cost, 1.0)
        return self._means(quality * self.predicted_quality - cost * fine)

    def at_rate(self, rate: float) -> tuple[float, float]:
        """Return mean (quality, cost) when choices may spend `rate` US dollars per request.

        Notes
        -----
        The price of money is set in hindsight: the two neighbouring prices whose realised means
        enclose the rate are mixed to meet it. A rate that nothing binds is not spent, and one
        below what the dearest price of money leaves is not met.
        """

        def means(price: float) -> tuple[float, float]:
            return self._means(self.predicted_quality - price * self.predicted_cost)

        low, above = 0.0, means(0.0)
        if above[1] <= rate:
            return above
        high = 1.0 / rate
        below = means(high)
        while below[1] > rate:
            if high > 1e6 / rate:
                return below
            low, above, high = high, below, 4.0 * high
            below = means(high)
        for _ in range(_STEPS):
            middle = 0.5 * (low + high)
            found = means(middle)
            if found[1] > rate:
                low, above = middle, found
            else:
                high, below = middle, found
        share = (rate - below[1]) / (above[1] - below[1])
        return share * above[0] + (1.0 - share) * below[0], rate

    def _means(self, utility: Float64) -> tuple[float, float]:
        chosen = utility.argmax(axis=1)
        rows = np.arange(len(chosen))
        return float(self.quality[rows, chosen].mean()), float(self.cost[rows, chosen].mean())


def ridge(x: Float64, y: Float64) -> Float64:
    """Return coefficients[d, K] of y[n, K] on x[n, d], shrunk as cross-validation likes best.

    Parameters
    ----------
    x : rows in random order; the last column is the intercept, which is not shrunk.
    y : targets, each of which gets the precision of `PRECISIONS` that suits it.
    """
    fold = np.arange(len(x)) % FOLDS
    error = np.zeros((len(PRECISIONS), y.shape[1]))
    for part in range(FOLDS):
        inside, outside = fold != part, fold == part
        fits = _path(x[inside], y[inside])
        error += ((x[outside] @ fits - y[outside]) ** 2).sum(axis=1)
    best = error.argmin(axis=0)
    chosen: Float64 = _path(x, y)[best, :, np.arange(y.shape[1])].T
    return chosen


def _path(x: Float64, y: Float64) -> Float64:
    """Return coefficients[P, d, K], one set for every precision."""
    gram, moment = x.T @ x, x.T @ y
    slopes = np.ones(len(gram))
    slopes[-1] = 0.0
    return np.stack([np.linalg.solve(gram + p * np.diag(slopes), moment) for p in PRECISIONS])

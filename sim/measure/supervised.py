"""The supervised limit: the best that linear features can do when every label is known.

Ridge regressions of quality and cost learn all models' answers to the learned rows, where a router
sees one answer per prompt, and then choose on the scored rows. A policy's gain over the zero router
is compared with the gain of this limit. It must never be shown to a policy. Nothing here is learned
online.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.base import Float32, Float64
from sim.data.dataset import Dataset

PRECISIONS = tuple(float(p) for p in np.geomspace(1.0, 1e4, 13))
FOLDS = 5
_LEAST_COST_USD = 1e-9
_BISECTIONS = 60


@dataclass(frozen=True, slots=True)
class Supervised:
    """Predictions for the scored rows, and the labels that its choices are scored with.

    Attributes
    ----------
    predicted_quality, predicted_cost_usd : float64[n, K]
        What choices are made from; cost in US dollars per request.
    quality, cost_usd : float64[n, K]
        The labels; cost in US dollars per request.
    """

    predicted_quality: Float64
    predicted_cost_usd: Float64
    quality: Float64
    cost_usd: Float64

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
        dataset : Dataset
            Complete data, without NaN.
        features : float32[rows, d]
            Features of the whole data; the last column is the intercept.
        learned, scored : int[m], int[n]
            Rows, each in random order; neither may be empty.
        """
        x, scored_x = features[learned].astype(np.float64), features[scored].astype(np.float64)
        cost_usd = dataset.cost_usd[learned]
        log_cost = np.log(np.maximum(cost_usd, _LEAST_COST_USD))
        weights = ridge(x, log_cost)
        # The exponential of a mean logarithm is below the mean: one factor per model corrects it.
        smearing = cost_usd.mean(axis=0) / np.exp(x @ weights).mean(axis=0)
        return cls(
            predicted_quality=scored_x @ ridge(x, dataset.quality[learned]),
            predicted_cost_usd=np.exp(scored_x @ weights) * smearing,
            quality=dataset.quality[scored],
            cost_usd=dataset.cost_usd[scored],
        )

    @classmethod
    def cross_fitted(
        cls, dataset: Dataset, features: Float32, rows: NDArray[np.intp]
    ) -> Supervised:
        """Predict each of `FOLDS` parts of the rows from all other parts.

        Parameters
        ----------
        dataset, features : Dataset, float32[rows, d]
            As for `of`.
        rows : int[n]
            Rows in random order, none of them twice.
        """
        parts = np.array_split(rows, min(FOLDS, len(rows)))
        fits = [
            cls.of(dataset, features, np.concatenate([*parts[:k], *parts[k + 1 :]]), part)
            for k, part in enumerate(parts)
        ]
        return cls(
            predicted_quality=np.concatenate([fit.predicted_quality for fit in fits]),
            predicted_cost_usd=np.concatenate([fit.predicted_cost_usd for fit in fits]),
            quality=dataset.quality[rows],
            cost_usd=dataset.cost_usd[rows],
        )

    @classmethod
    def oracle(cls, quality: Float64, cost_usd: Float64) -> Supervised:
        """Return the limit whose predictions are the labels quality[n, K] and cost_usd[n, K]."""
        return cls(quality, cost_usd, quality, cost_usd)

    def at_preference(
        self, quality_weight: float, cost_weight: float, *, tau_cost_usd: float
    ) -> tuple[float, float]:
        """Return mean quality and cost in US dollars of the choices of highest predicted utility.

        Parameters
        ----------
        quality_weight, cost_weight : float
            Weights of the preference.
        tau_cost_usd : float
            US dollars that count as cost 1, as does every larger cost.
        """
        scaled_cost = np.minimum(self.predicted_cost_usd / tau_cost_usd, 1.0)
        return self._means(quality_weight * self.predicted_quality - cost_weight * scaled_cost)

    def at_rate(self, rate_usd: float) -> tuple[float, float]:
        """Return mean quality and cost in US dollars when choices may spend a rate per request.

        Parameters
        ----------
        rate_usd : float
            US dollars per request.

        Notes
        -----
        The price of money, in quality units per US dollar, is set in hindsight. Of two neighbouring
        prices, one costs more than the rate and one at most the rate; they are mixed to meet it. A
        rate above the cost at price 0 is not spent. A rate below the cost at the highest price is
        not met.
        """

        def means(price: float) -> tuple[float, float]:
            return self._means(self.predicted_quality - price * self.predicted_cost_usd)

        low_price, above = 0.0, means(0.0)
        if above[1] <= rate_usd:
            return above
        high_price = 1.0 / rate_usd
        below = means(high_price)
        while below[1] > rate_usd:
            if high_price > 1e6 / rate_usd:
                return below
            low_price, above, high_price = high_price, below, 4.0 * high_price
            below = means(high_price)
        for _ in range(_BISECTIONS):
            price = 0.5 * (low_price + high_price)
            middle = means(price)
            if middle[1] > rate_usd:
                low_price, above = price, middle
            else:
                high_price, below = price, middle
        share = (rate_usd - below[1]) / (above[1] - below[1])
        return share * above[0] + (1.0 - share) * below[0], rate_usd

    def _means(self, utility: Float64) -> tuple[float, float]:
        chosen = utility.argmax(axis=1)
        rows = np.arange(len(chosen))
        return float(self.quality[rows, chosen].mean()), float(self.cost_usd[rows, chosen].mean())


def ridge(x: Float64, y: Float64) -> Float64:
    """Return coefficients[d, K] of y[n, K] on x[n, d], with the best precision in cross-validation.

    Parameters
    ----------
    x : float64[n, d]
        Rows in random order; the last column is the intercept, which is not shrunk.
    y : float64[n, K]
        Targets; each gets its own precision of `PRECISIONS`.
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

"""Outliers of a table by a flow, as a scikit-learn estimator."""

from collections.abc import Callable
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from longflow import anomaly
from longflow.commands.fit import distinct
from longflow.errors import UsageError, choose
from longflow.sklearn.density import FlowDensity, weights_of


class FlowOutlier(OutlierMixin, BaseEstimator):
    """Calls rows outliers that a score of a flow finds strangest (`longflow.anomaly`, which says how each fails).

    - `log-likelihood`: the log-density. The one to begin with, for tables.
    - `typicality`: how far the log-density is from its mean over the training rows, on either side.
    - `ratio`: the log-density over that of a second flow, trained on rows of which a share `rate` of the numbers is
      replaced by those of other rows.
    - `latent`: how ill the numbers of a row's latent fit the standard normal, by Anderson and Darling's statistic.

    The flow is trained on all rows, outliers among them: leave out what is known to be one (or give it the weight 0).

    Args:
        density: The density to train, copied first; None for `FlowDensity()`.
        method: One of the scores above.
        contamination: Share of the training rows that are called outliers, in (0, 0.5].
        rate: Share of the numbers that are replaced for the background of `ratio`.
        random_state: Seed, generator or None, in place of the density's own.

    Attributes:
        density_: The density fitted.
        background_: That of the perturbed rows, for `ratio`.
        entropy_: Mean of minus the log-density over the training rows, in nats, for `typicality`.
        offset_: Score below which a row is called an outlier.
        n_features_in_: Number of columns D.
        feature_names_in_: Names of the columns, where X had names.
    """

    def __init__(
        self,
        density: FlowDensity | None = None,
        *,
        method: Literal["log-likelihood", "typicality", "ratio", "latent"] = "log-likelihood",
        contamination: float = 0.1,
        rate: float = 0.2,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.density = density
        self.method = method
        self.contamination = contamination
        self.rate = rate
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the density and the offset to X, (N, D), whose rows count `sample_weight` times, (N,); y is ignored."""
        choose("method", self.method, SCORES)
        if not 0 < self.contamination <= 0.5:
            raise UsageError(f"expected contamination in (0, 0.5]; {self.contamination} came")
        x = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        weights = weights_of(sample_weight, len(x))
        density = clone(FlowDensity() if self.density is None else self.density)
        seeds = check_random_state(self.random_state).randint(2**31, size=2)
        density.set_params(random_state=int(seeds[0]))
        self.density_ = density.fit(x, sample_weight=weights)
        if self.method == "ratio":
            rows, counts = distinct(x, weights)
            noisy = anomaly.perturbed(rows, self.rate, np.random.default_rng(seeds[1]), counts)
            self.background_ = clone(density).fit(noisy, sample_weight=counts)
        if self.method == "typicality":
            self.entropy_ = -float(np.average(self.density_.score_samples(x), weights=weights))
        self.offset_ = threshold(-SCORES[self.method](self, x), weights, self.contamination)
        return self

    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """Return the score of each row, (N,): as scikit-learn has it, the lower the stranger."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=np.float64, reset=False)
        return -SCORES[self.method](self, x)

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Return the scores less `offset_`, (N,): below 0 for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Return -1 for outliers and 1 for all other rows, (N,)."""
        return np.where(self.decision_function(X) < 0, -1, 1)


def threshold(scores: np.ndarray, weights: np.ndarray, share: float) -> float:
    """Return an offset, midway between two scores, below which lies the least part of the weight that is >= `share`."""
    counted = weights > 0
    values, which = np.unique(scores[counted], return_inverse=True)
    below = np.cumsum(np.bincount(which, weights[counted]))
    k = int(np.searchsorted(below, share * below[-1] * (1 - 1e-12)))
    return float(values[k : k + 2].mean())


def _surprise(fitted: FlowOutlier, x: np.ndarray) -> np.ndarray:
    return anomaly.surprise(_log_prob(fitted.density_, x)).numpy()


def _atypicality(fitted: FlowOutlier, x: np.ndarray) -> np.ndarray:
    return anomaly.atypicality(_log_prob(fitted.density_, x), fitted.entropy_).numpy()


def _ratio(fitted: FlowOutlier, x: np.ndarray) -> np.ndarray:
    return anomaly.likelihood_ratio(_log_prob(fitted.density_, x), _log_prob(fitted.background_, x)).numpy()


def _latent(fitted: FlowOutlier, x: np.ndarray) -> np.ndarray:
    density = fitted.density_
    with torch.inference_mode():
        parts = [anomaly.latent_misfit(density.flow_, z).cpu().numpy() for z in density.standardised(x)]
    return np.concatenate(parts)


def _log_prob(density: FlowDensity, x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(density.score_samples(x))


SCORES: dict[str, Callable[[FlowOutlier, np.ndarray], np.ndarray]] = {
    "log-likelihood": _surprise,
    "typicality": _atypicality,
    "ratio": _ratio,
    "latent": _latent,
}
"""Of rows of X, (N, D), the strangeness, (N,)."""

"""The density of a table as a scikit-learn estimator."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from longflow.bijections import Standardise
from longflow.commands.fit import ROWS_AT_ONCE, WeightedRows, distinct, fit, threads_of
from longflow.data import Support
from longflow.data.checks import feature
from longflow.data.support import require_inside
from longflow.distributions import LatentModel
from longflow.errors import UsageError, choose
from longflow.models import CATALOGUE, build
from longflow.models.supported import fit_units, supported
from longflow.seeds import fixed_draws
from longflow.training import Recipe
from longflow.training.device import prepare

DTYPES = {"float32": torch.float32, "float64": torch.float64}
DRAWS = 16
"""Draws of the noise of whole columns, for a bound."""

FEWEST = 10
"""Distinct rows below which none is held out."""


class FlowDensity(DensityMixin, BaseEstimator):
    """The density of a table by a flow that is trained by (weighted) maximum likelihood.

    Columns are standardised inside; densities are in the units of X. The flow is trained in `dtype` and scores in
    float64. Rows that are equal are one row of more weight, and rows are put in order first: so the fit depends neither
    on their order nor on whether a row has the weight 2 or comes twice, and no row is both trained on and held out.
    Given `random_state` the fit is deterministic; torch's own generator is left as it was.

    Where columns have a declared support, all mass lies in it: what is bounded is brought to the whole line, and whole
    numbers are dequantised, so that their share of a score is a log-probability, of which a lower bound is told by 16
    draws, the same at every call. A density of real numbers has no bound where they are whole: declare them.

    Args:
        model: A flow of the catalogue (`longflow list`). A table of one column takes one that is autoregressive.
        options: Its options; None for its defaults.
        supports: Supports of columns by name or place: "0:", ":1", "0:1", "integer", "integer 0:", "integer 0:120";
            both ends belong to them. A column of which nothing is said is real.
        steps: Most steps of the optimiser.
        batch: Rows in a batch.
        lr: Learning rate, which falls as half a cosine.
        weight_decay: Decoupled weight decay.
        validation_fraction: Share of the distinct rows that is held out to choose the step whose weights are kept; 0
            for none. Below 10 distinct rows there is none.
        patience: Validations (every 50 steps or an epoch, what is longer) without improvement after which training
            stops; 0 for never.
        dtype: Type in which it is trained: float32 or float64.
        device: auto, cpu, cuda, cuda:1, ...
        threads: CPU threads of a fit; None for torch's own setting.
        random_state: Seed, generator or None, as in scikit-learn.

    Attributes:
        flow_: The density of rows (x - mean_) / scale_, a `LatentModel` in float64.
        supports_: The support of each column, a tuple of D.
        mean_: Mean of each column, (D,); 0 for one with a declared support, which the flow standardises.
        scale_: Deviation of each column, (D,); 1 for one with a declared support.
        n_iter_: Steps taken.
        best_step_: Step whose weights are kept.
        validation_score_: Mean log-density of the held-out rows, in nats, in the units of X; NaN without any.
        n_features_in_: Number of columns D.
        feature_names_in_: Names of the columns, where X had names.
    """

    def __init__(
        self,
        model: str = "nsf",
        *,
        options: Mapping[str, Any] | None = None,
        supports: Mapping[str | int, str] | None = None,
        steps: int = 2000,
        batch: int = 256,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        validation_fraction: float = 0.1,
        patience: int = 10,
        dtype: Literal["float32", "float64"] = "float32",
        device: str = "cpu",
        threads: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.model = model
        self.options = options
        self.supports = supports
        self.steps = steps
        self.batch = batch
        self.lr = lr
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.dtype = dtype
        self.device = device
        self.threads = threads
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the density to X, (N, D), whose rows count `sample_weight` times, (N,); y is ignored.

        Raises ValueError for missing or infinite values, fewer than two rows, columns that are constant, weights that
        are negative or all 0, and parameters that are none.
        """
        if not 0 <= self.validation_fraction < 1 or self.steps < 1 or self.patience < 0:
            raise UsageError(
                "expected 0 <= validation_fraction < 1, steps >= 1 and patience >= 0;"
                f" {self.validation_fraction}, {self.steps} and {self.patience} came"
            )
        x = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        rows, weights = distinct(x, weights_of(sample_weight, len(x)))
        self.supports_ = supports_of(self.supports or {}, x.shape[1], self._names)
        require_inside("X", x, self._names, self.supports_)
        self._set_units(rows, weights)
        seed = int(check_random_state(self.random_state).randint(2**31))
        device = prepare(self.device)
        with fixed_draws(seed), threads_of(self.threads):
            self._train(torch.from_numpy((rows - self.mean_) / self.scale_), weights, device, seed)
        return self

    def score_samples(self, X: ArrayLike) -> np.ndarray:
        """Return the log-density of each row of X, (N,), in nats, in the units of X; -inf outside the supports."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=np.float64, reset=False)
        with fixed_draws(0), torch.inference_mode():
            parts = [self.flow_.bound(z, samples=DRAWS).cpu().numpy() for z in self.standardised(x)]
        outside = np.any([support.outside(column) for support, column in zip(self.supports_, x.T, strict=True)], 0)
        return np.where(outside, -np.inf, np.concatenate(parts) - np.log(self.scale_).sum())

    def standardised(self, x: np.ndarray) -> Iterator[torch.Tensor]:
        """Yield rows (N, D) as `flow_` takes them, some thousand at a time."""
        like = next(self.flow_.parameters())
        return (z.to(like) for z in torch.from_numpy((x - self.mean_) / self.scale_).split(ROWS_AT_ONCE))

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Return the mean log-density of the rows of X, in nats; y is ignored."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> np.ndarray:
        """Draw rows, (n_samples, D), in the units of X."""
        check_is_fitted(self)
        with fixed_draws(int(check_random_state(random_state).randint(2**31))), torch.inference_mode():
            parts = [
                self.flow_.sample(min(ROWS_AT_ONCE, n_samples - k)) for k in range(0, max(1, n_samples), ROWS_AT_ONCE)
            ]
        return torch.cat(parts).cpu().numpy() * self.scale_ + self.mean_

    def _set_units(self, rows: np.ndarray, weights: np.ndarray) -> None:
        whole = np.array([support.whole for support in self.supports_])
        constant = np.flatnonzero((rows.min(0) == rows.max(0)) & ~whole)
        if len(constant):
            raise UsageError(
                f"{feature(int(constant[0]), self._names)} has the same value in every row:"
                f" its density is not finite; drop it"
            )
        declared = whole | np.array([support.bounded for support in self.supports_])
        mean = np.average(rows, 0, weights)
        self.mean_ = np.where(declared, 0.0, mean)
        self.scale_ = np.where(declared, 1.0, np.sqrt(np.average((rows - mean) ** 2, 0, weights)))

    @property
    def _names(self) -> tuple[str, ...] | None:
        """The names of the columns, where X had names."""
        names = getattr(self, "feature_names_in_", None)
        return None if names is None else tuple(names)

    def _train(self, z: torch.Tensor, weights: np.ndarray, device: torch.device, seed: int) -> None:
        dtype = DTYPES[choose("dtype", self.dtype, DTYPES)]
        flow = flow_of(self.model, self.supports_, self.options or {}).to(device, dtype)
        fit_units(flow, z.numpy())
        held = round(self.validation_fraction * len(z)) if len(z) >= FEWEST else 0
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(z)))
        every = WeightedRows(z.to(device, dtype), torch.from_numpy(weights).to(device, dtype))
        held_out, training = (
            WeightedRows(every.rows[part], every.weights[part]) for part in order.tensor_split([held])
        )
        recipe = Recipe(batch=self.batch, lr=self.lr, weight_decay=self.weight_decay)
        found = fit(
            flow,
            training,
            held_out if held else None,
            recipe,
            steps=self.steps,
            patience=self.patience,
            seed=seed,
        )
        self.flow_ = flow.double()
        self.n_iter_, self.best_step_ = found.steps, found.best_step
        self.validation_score_ = found.validation_nats - float(np.log(self.scale_).sum())


def weights_of(sample_weight: ArrayLike | None, rows: int) -> np.ndarray:
    """Return weights of rows, (N,), 1 where none are given; raise ValueError unless they are >= 0 and not all 0."""
    if sample_weight is None:
        return np.ones(rows)
    weights = check_array(sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
    if weights.shape != (rows,):
        raise UsageError(f"expected sample weights of shape ({rows},); {weights.shape} came")
    if weights.min() < 0:
        raise UsageError(f"expected sample weights >= 0; {weights.min():g} came")
    if not weights.any():
        raise UsageError("Sample weights must contain at least one non-zero number.")
    return weights


def supports_of(declared: Mapping[str | int, str], features: int, names: tuple[str, ...] | None) -> tuple[Support, ...]:
    """Return the support of each column, from those declared by name or place."""
    found = [Support()] * features
    for column, text in declared.items():
        if isinstance(column, str) and names is None:
            raise UsageError(
                f"X has no names of columns: declare supports by place, 0 to {features - 1}; {column!r} came"
            )
        if isinstance(column, str):
            place = (names or ()).index(choose("column", column, names or ()))
        elif 0 <= column < features:
            place = int(column)
        else:
            raise UsageError(f"expected supports of columns 0 to {features - 1}; {column} came")
        found[place] = Support.parse(text)
    return tuple(found)


def flow_of(name: str, supports: tuple[Support, ...], options: Mapping[str, Any]) -> LatentModel:
    """Build a flow of vectors; raise UsageError for a model that is none, or that takes no single feature."""
    features = len(supports)
    entry = CATALOGUE[choose("model", name, CATALOGUE)]
    if entry.objective is not None:
        raise UsageError(f"expected a flow; {name} has no exact density")
    try:
        flow = cast(LatentModel, build(name, (features,), **options))
    except UsageError as error:
        if features > 1:
            raise
        raise UsageError(f"{error} (n_features = 1)") from error
    if not any(support.bounded or support.whole for support in supports):
        return flow
    flow.preprocess(Standardise(torch.zeros(features), torch.ones(features)))
    return cast(LatentModel, supported(flow, supports))

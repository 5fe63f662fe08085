"""Training on rows in memory, without a run directory: for the doors that are no command line."""

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from longflow.adaptive import ADAPT_ROWS
from longflow.bijections import adapt
from longflow.distributions import LatentModel
from longflow.errors import UsageError
from longflow.objectives import WeightedLikelihood, weigh
from longflow.training import Batches, Recipe, State, train
from longflow.training.early import Held, keep_best, ready

STEPS_BETWEEN_VALIDATIONS = 50
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class WeightedRows:
    """Rows (N, *shape), each of which counts `weights` (N,) times."""

    rows: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Fitted:
    """Steps taken, the step whose weights are kept, and their mean log-likelihood of held-out rows (NaN without)."""

    steps: int
    best_step: int
    validation_nats: float


def fit(
    model: LatentModel,
    training: WeightedRows,
    held_out: WeightedRows | None,
    recipe: Recipe,
    *,
    steps: int,
    patience: int,
    seed: int,
) -> Fitted:
    """Train a density by weighted maximum likelihood, in place; keep the weights that are best on held-out rows.

    Every 50 steps, or an epoch where that is longer, the averaged weights are validated; after `patience` validations
    without improvement training stops (0: never). Without held-out rows the last weights are kept. Draws of training
    are of torch's generator as the caller set it; `seed` orders the rows, and fixes the draws of validations.
    """
    some = training.rows[:ADAPT_ROWS], None
    adapt(model, *some)
    batches = Batches(training.rows, weigh(training.weights), recipe.batch, seed)
    objective = WeightedLikelihood()
    state = State(model, objective, recipe)
    loop = train(state, objective, batches, recipe, steps, batches.steps_per_epoch)
    if held_out is None:
        deque(loop, maxlen=0)
        model.load_state_dict(ready(state.best_weights, some).state_dict())
        model.eval()
        return Fitted(steps, steps, math.nan)
    interval = math.ceil(STEPS_BETWEEN_VALIDATIONS / batches.steps_per_epoch) * batches.steps_per_epoch
    measure, held = partial(_mean_log_prob, held_out=held_out), Held()
    keep_best(held, state, loop, measure, some, interval=interval, steps=steps, patience=patience, seed=seed)
    return Fitted(held.steps[-1], held.best_step, held.best)


def _mean_log_prob(model: nn.Module, held_out: WeightedRows) -> float:
    """Return the weighted mean log-likelihood of held-out rows, in nats."""
    with torch.inference_mode():
        log_prob = torch.cat([model(x) for x in held_out.rows.split(ROWS_AT_ONCE)])
    return float((held_out.weights * log_prob).sum() / held_out.weights.sum())


def distinct(rows: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows of weight above 0, in order, and the sum of the weights of each."""
    counted = weights > 0
    found, which = np.unique(rows[counted] + 0.0, axis=0, return_inverse=True)
    return found, np.bincount(which.ravel(), weights[counted])


@contextmanager
def threads_of(number: int | None) -> Iterator[None]:
    """Let torch use so many CPU threads within; None for as many as it does."""
    before = torch.get_num_threads()
    if number is not None and number < 1:
        raise UsageError(f"expected threads >= 1; {number} came")
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""Training on rows in memory, without a run directory: for the doors that are no command line."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from longflow.adaptive import ADAPT_ROWS
from longflow.bijections import adapt, settle
from longflow.constraints import tighten
from longflow.distributions import LatentModel
from longflow.errors import TrainingDivergedError, UsageError
from longflow.objectives import WeightedLikelihood, weigh
from longflow.training import Batches, Recipe, State, train

STEPS_BETWEEN_VALIDATIONS = 50
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Weighted:
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
    training: Weighted,
    held_out: Weighted | None,
    recipe: Recipe,
    *,
    steps: int,
    patience: int,
    seed: int,
) -> Fitted:
    """Train a density by weighted maximum likelihood, in place; keep the weights that are best on held-out rows.

    Every 50 steps, or an epoch where that is longer, the averaged weights are validated; after `patience` validations
    without improvement training stops (0: never). Without held-out rows the last weights are kept. All draws are of
    torch's generator as the caller set it; `seed` orders the rows.
    """
    adapt(model, training.rows[:ADAPT_ROWS])
    batches = Batches(training.rows, weigh(training.weights), recipe.batch, seed)
    objective = WeightedLikelihood()
    state = State(model, objective, recipe)
    best, kept, stale = Fitted(0, 0, -math.inf), {}, 0
    for progress in train(state, objective, batches, recipe, steps, batches.steps_per_epoch):
        if not _is_time(progress.step, steps, batches.steps_per_epoch, held_out):
            continue
        nats = _validate(state.best_weights, training, held_out)
        better = held_out is None or nats > best.validation_nats
        if better:
            best, kept = Fitted(progress.step, progress.step, nats), copy.deepcopy(state.best_weights.state_dict())
        best = replace(best, steps=progress.step)
        stale = 0 if better else stale + 1
        if 0 < patience <= stale:
            break
    if not kept:
        raise TrainingDivergedError("the log-likelihood of held-out rows was never finite")
    model.load_state_dict(kept)
    model.eval()
    return best


def _is_time(step: int, steps: int, per_epoch: int, held_out: Weighted | None) -> bool:
    """Return whether to validate: at the end, and before it where there is something to validate on."""
    interval = math.ceil(STEPS_BETWEEN_VALIDATIONS / per_epoch) * per_epoch
    return step == steps or (held_out is not None and step % interval == 0)


def _validate(model: nn.Module, training: Weighted, held_out: Weighted | None) -> float:
    """Return the mean log-likelihood of held-out rows, in nats, of the model as it is kept; NaN without rows."""
    model.eval()
    tighten(model)
    settle(model, training.rows[:ADAPT_ROWS])
    if held_out is None:
        return math.nan
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

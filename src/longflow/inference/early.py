"""Training that ends when held-out rows stop getting likelier."""

import copy
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from tqdm import tqdm

from longflow.adaptive import ADAPT_ROWS, has_statistics, settle
from longflow.constraints import tighten
from longflow.errors import TrainingDivergedError, UsageError
from longflow.inference.evaluating import evaluating
from longflow.objectives import MaximumLikelihood
from longflow.training import Batches, Progress, Recipe, State, train
from longflow.training.processes import stopping
from longflow.units import nats

ROWS_AT_ONCE = 4096


@dataclass
class Held:
    """Held-out log-likelihoods, in nats an event: the mean after each epoch, and where it was best."""

    training: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)

    @property
    def best(self) -> float:
        """The best of the epochs; -∞ where none gave a finite number."""
        return max(filter(math.isfinite, self.validation), default=-math.inf)

    @property
    def stale(self) -> int:
        """Epochs since the best one, or since the start where none gave a finite number."""
        epochs = len(self.validation)
        return epochs if self.best == -math.inf else epochs - 1 - self.validation.index(self.best)


def fit_rows(
    model: nn.Module,
    train_rows: tuple[Tensor, Tensor | None],
    held_rows: tuple[Tensor, Tensor | None],
    recipe: Recipe,
    *,
    epochs: int,
    patience: int,
    seed: int,
) -> Held:
    """Train by maximum likelihood; keep the weights of the epoch that held-out rows like best.

    Rows are (x, context). It ends after `patience` epochs without a better one, after `epochs`, or by Ctrl-C. Batch
    statistics are settled on training rows under the weights that are validated, and kept with them.

    Raises TrainingDivergedError where a loss is not finite, or no epoch gave held-out rows a finite mean.
    """
    objective = MaximumLikelihood()
    state = State(model, objective, recipe)
    batches = Batches(*train_rows, recipe.batch, seed)
    some = train_rows[0][:ADAPT_ROWS], None if train_rows[1] is None else train_rows[1][:ADAPT_ROWS]
    if has_statistics(model) and batches.batch < 2:
        raise UsageError("a model with batch statistics expects batches of at least 2 rows; 1 came")
    held, kept, losses = Held(), copy.deepcopy(model.state_dict()), []
    loop = train(state, objective, batches, recipe, epochs * batches.steps_per_epoch, batches.steps_per_epoch)
    with stopping() as asked:
        for progress in _shown(loop, held, epochs):
            losses.append(progress.loss)
            if progress.step % batches.steps_per_epoch == 0:
                tighten(state.best_weights.eval())
                settle(state.best_weights, *some)
                held.training.append(-nats(sum(losses) / len(losses), train_rows[0][0].numel()))
                held.validation.append(mean_log_prob(state.best_weights, *held_rows))
                losses = []
                if held.stale == 0:
                    kept = copy.deepcopy(state.best_weights.state_dict())
                if held.stale >= patience:
                    break
            if asked:
                print(f"longflow: stopped in epoch {progress.epoch}; the best epoch is kept", file=sys.stderr)
                break
    if held.validation and held.best == -math.inf:
        raise TrainingDivergedError(f"held-out rows had no finite log-likelihood in {len(held.validation)} epochs")
    model.load_state_dict(kept)
    model.eval()
    return held


def mean_log_prob(model: nn.Module, x: Tensor, context: Tensor | None) -> float:
    """Return the mean of log p(x | context), in nats."""
    return float(log_probs(model, x, context).double().mean())


def log_probs(model: nn.Module, x: Tensor, context: Tensor | None) -> Tensor:
    """Return log p(x | context) in evaluation mode, (B,), in nats, part by part."""
    parts = [slice(i, i + ROWS_AT_ONCE) for i in range(0, len(x), ROWS_AT_ONCE)]
    with torch.no_grad(), evaluating(model):
        return torch.cat([model(x[part], None if context is None else context[part]) for part in parts])


def _shown(loop: Iterator[Progress], held: Held, epochs: int) -> Iterator[Progress]:
    with tqdm(total=epochs, unit=" epochs", disable=None, dynamic_ncols=True, leave=False) as bar:
        for progress in loop:
            bar.update(progress.epoch - 1 - bar.n)
            bar.set_postfix(validation_nats=f"{held.best:.4f}", stale=held.stale, refresh=False)
            yield progress

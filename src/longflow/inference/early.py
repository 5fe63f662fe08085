"""Training that ends when held-out rows stop getting likelier."""

import copy
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from tqdm import tqdm

from longflow.constraints import tighten
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
        """The best of the epochs."""
        return max(self.validation, default=-math.inf)

    @property
    def stale(self) -> int:
        """Epochs since the best one."""
        return len(self.validation) - 1 - self.validation.index(self.best) if self.validation else 0


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

    Rows are (x, context). It ends after `patience` epochs without a better one, after `epochs`, or by Ctrl-C.
    """
    objective = MaximumLikelihood()
    state = State(model, objective, recipe)
    batches = Batches(*train_rows, recipe.batch, seed)
    held, kept, losses = Held(), copy.deepcopy(model.state_dict()), []
    loop = train(state, objective, batches, recipe, epochs * batches.steps_per_epoch, batches.steps_per_epoch)
    with stopping() as asked:
        for progress in _shown(loop, held, epochs):
            losses.append(progress.loss)
            if progress.step % batches.steps_per_epoch == 0:
                tighten(state.best_weights.eval())
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
    model.load_state_dict(kept)
    model.eval()
    return held


def mean_log_prob(model: nn.Module, x: Tensor, context: Tensor | None) -> float:
    """Return the mean of log p(x | context), in nats."""
    total = 0.0
    with torch.no_grad():
        for i in range(0, len(x), ROWS_AT_ONCE):
            part = slice(i, i + ROWS_AT_ONCE)
            total += float(model(x[part], None if context is None else context[part]).double().sum())
    return total / len(x)


def _shown(loop: Iterator[Progress], held: Held, epochs: int) -> Iterator[Progress]:
    with tqdm(total=epochs, unit=" epochs", disable=None, dynamic_ncols=True, leave=False) as bar:
        for progress in loop:
            bar.update(progress.epoch - 1 - bar.n)
            bar.set_postfix(validation_nats=f"{held.best:.4f}", stale=held.stale, refresh=False)
            yield progress

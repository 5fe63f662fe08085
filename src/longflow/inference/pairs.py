"""Training on pairs of rows and contexts in memory, which ends when held-out ones stop getting likelier."""

import sys
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from tqdm import tqdm

from longflow.adaptive import ADAPT_ROWS, has_statistics
from longflow.errors import UsageError
from longflow.inference.evaluating import evaluating
from longflow.objectives import MaximumLikelihood
from longflow.training import Batches, Progress, Recipe, State, train
from longflow.training.early import Held, Pair, keep_best
from longflow.training.processes import stopping

ROWS_AT_ONCE = 4096


def fit_pairs(
    model: nn.Module, training: Pair, held_out: Pair, recipe: Recipe, *, epochs: int, patience: int, seed: int
) -> Held:
    """Train by maximum likelihood; keep the weights of the epoch that held-out rows like best.

    Rows are (x, context). It ends after `patience` epochs without a better one, after `epochs`, or by Ctrl-C. Batch
    statistics are settled on training rows under the weights that are validated, and kept with them.

    Raises TrainingDivergedError where a loss is not finite, or no epoch gave held-out rows a finite mean.
    """
    objective = MaximumLikelihood()
    state = State(model, objective, recipe)
    batches = Batches(*training, recipe.batch, seed)
    x, context = training
    some = x[:ADAPT_ROWS], None if context is None else context[:ADAPT_ROWS]
    if has_statistics(model) and batches.batch < 2:
        raise UsageError("a model with batch statistics expects batches of at least 2 rows; 1 came")
    per_epoch, held = batches.steps_per_epoch, Held()
    steps = epochs * per_epoch
    loop = train(state, objective, batches, recipe, steps, per_epoch)
    measure = partial(mean_log_prob, x=held_out[0], context=held_out[1])
    with stopping() as asked:
        shown = _until(asked, _shown(loop, held, epochs))
        keep_best(held, state, shown, measure, some, interval=per_epoch, steps=steps, patience=patience, seed=seed)
    return held


def mean_log_prob(model: nn.Module, x: Tensor, context: Tensor | None) -> float:
    """Return the mean of log p(x | context), in nats."""
    return float(log_probs(model, x, context).double().mean())


def log_probs(model: nn.Module, x: Tensor, context: Tensor | None) -> Tensor:
    """Return log p(x | context) in evaluation mode, (B,), in nats, part by part."""
    parts = [slice(i, i + ROWS_AT_ONCE) for i in range(0, len(x), ROWS_AT_ONCE)]
    with torch.no_grad(), evaluating(model):
        return torch.cat([model(x[part], None if context is None else context[part]) for part in parts])


def _until(asked: list[int], loop: Iterator[Progress]) -> Iterator[Progress]:
    """Pass the steps on until Ctrl-C."""
    for progress in loop:
        yield progress
        if asked:
            print(f"longflow: stopped in epoch {progress.epoch}; the best epoch is kept", file=sys.stderr)
            return


def _shown(loop: Iterator[Progress], held: Held, epochs: int) -> Iterator[Progress]:
    """Pass the steps on, with a bar of the epochs on a terminal."""
    with tqdm(total=epochs, unit=" epochs", disable=None, dynamic_ncols=True, leave=False) as bar:
        for progress in loop:
            bar.update(progress.epoch - 1 - bar.n)
            bar.set_postfix(validation_nats=f"{held.best:.4f}", stale=held.stale, refresh=False)
            yield progress

"""Variational inference: a flow fitted to a density known up to a factor."""

import copy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from longflow.adaptive import has_statistics
from longflow.constraints import tighten
from longflow.distributions import Distribution
from longflow.errors import UsageError
from longflow.inference.divergences import LogDensity, ReverseKL
from longflow.inference.importance import Weighted, importance
from longflow.objectives import Objective
from longflow.seeds import derived, fixed_draws
from longflow.training import Progress, Recipe, State, train
from longflow.training.processes import stopping
from longflow.units import nats

VARIATIONAL = Recipe(batch=256, lr=2e-3, clip=10.0, ema=0.99)
WEIGHING = 1
"""The key of the draws that are weighed: those of the training would flatter the flow that was fitted to them."""

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@dataclass(frozen=True, eq=False)
class Fit:
    """What a fit left: the flow itself, in evaluation mode and with averaged weights where the recipe averages.

    Attributes:
        flow: The flow that was given.
        history: The loss at each step, in nats: of `ReverseKL` minus the ELBO of a batch, of `ForwardKL` the
            cross-entropy.
        step: Steps taken; fewer than were asked for where Ctrl-C stopped it.
        state: With which `fit_density(…, begun=)` goes on, bit by bit as if it had not stopped.
        weighted: Draws with importance weights: ELBO, log Z, effective sample size, k̂.
    """

    flow: Distribution
    history: list[float]
    step: int
    state: dict[str, Any]
    weighted: Weighted


def fit_density(
    flow: Distribution,
    log_density: LogDensity,
    *,
    objective: Callable[[LogDensity], Objective] = ReverseKL,
    steps: int = 2000,
    recipe: Recipe = VARIATIONAL,
    seed: int = 0,
    draws: int = 10_000,
    begun: dict[str, Any] | None = None,
) -> Fit:
    """Fit the flow, in place, to the density p̃ by steps of `recipe.batch` draws, and weigh `draws` of it.

    Ctrl-C ends the fit after a step; what it had reached is returned, with its state. All noise follows from the seed,
    and the caller's generators are left alone. Constrained parameters are the flow's affair: `flow.preprocess` takes
    a bijection from their support to the whole line. `laplace` finds where an unknown density is.

    Raises UsageError for a log-density of the wrong shape or value (naming rows) and a flow that cannot be fitted so,
    TrainingDivergedError where a loss is not finite.
    """
    _check(flow, steps, draws)
    aim = objective(log_density)
    state = State(flow, aim, recipe)
    history: list[float] = []
    with fixed_draws(seed):
        if begun is not None:
            state.load_state_dict(begun["training"])
            history = list(begun["history"])
        loop = train(state, aim, lambda step: (torch.empty(recipe.batch, 0), None), recipe, steps, steps)
        with stopping() as asked:
            for progress in _shown(loop, state.step, steps):
                history.append(nats(progress.loss, flow.dims))
                if asked:
                    print(f"longflow: stopped at step {progress.step} of {steps}", file=sys.stderr)
                    break
        kept = copy.deepcopy({"training": state.state_dict(), "history": history})
    flow.load_state_dict(state.best_weights.state_dict())
    tighten(flow.eval())
    return Fit(flow, history, state.step, kept, importance(flow, log_density, draws, seed=derived(seed, WEIGHING)))


def _check(flow: Distribution, steps: int, draws: int) -> None:
    if steps < 1 or draws < 1:
        raise UsageError(f"expected at least 1 step and 1 draw; {steps} and {draws} came")
    if flow.context_shape is not None:
        raise UsageError(f"a fit to one density expects a flow without context; one of {flow.context_shape} came")
    if flow.likelihood != "exact" or not flow.reparametrised:
        raise UsageError(f"a fit to a density expects exact likelihoods of its draws; '{flow.likelihood}' came")
    if has_statistics(flow):
        raise UsageError(
            "a fit to a density expects rows that do not meet: normalise by learned scales, not by batches"
        )
    for layer in flow.modules():
        if isinstance(layer, DROPOUTS) and layer.p > 0:
            raise UsageError(
                f"a fit to a density draws and scores by one network: build it with dropout 0; {layer.p} came"
            )


def _shown(loop: Iterator[Progress], done: int, steps: int) -> Iterator[Progress]:
    """Pass the steps on, with a bar of the loss on a terminal."""
    with tqdm(total=steps, initial=done, unit=" steps", disable=None, dynamic_ncols=True, leave=False) as bar:
        for progress in loop:
            bar.set_postfix(bits_per_dim=f"{progress.loss:.4f}", refresh=False)
            bar.update()
            yield progress

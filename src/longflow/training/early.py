"""Training that keeps the weights which held-out rows like best, and ends when these stop getting likelier."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn

from longflow.adaptive import settle
from longflow.constraints import tighten
from longflow.errors import TrainingDivergedError
from longflow.seeds import fixed_draws
from longflow.training.loop import Progress, State
from longflow.units import counted, nats

Pair = tuple[Tensor, Tensor | None]
"""Rows and their contexts, where there are some."""


@dataclass
class Held:
    """Log-likelihoods at each validation, in nats an event: of held-out rows, and of the batches since the last one."""

    training: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    """Steps taken before each validation."""

    @property
    def best(self) -> float:
        """The best of the validations; -∞ where none gave a finite number."""
        return max(filter(math.isfinite, self.validation), default=-math.inf)

    @property
    def best_step(self) -> int:
        """The step of the best validation."""
        return self.steps[self.validation.index(self.best)]

    @property
    def stale(self) -> int:
        """Validations since the best one, or since the start where none gave a finite number."""
        count = len(self.validation)
        return count if self.best == -math.inf else count - 1 - self.validation.index(self.best)


def keep_best(
    held: Held,
    state: State,
    loop: Iterator[Progress],
    measure: Callable[[nn.Module], float],
    some: Pair,
    *,
    interval: int,
    steps: int,
    patience: int,
    seed: int,
) -> None:
    """Draw from a loop of maximum likelihood; leave the model with the weights that `measure` was best of.

    `held`, empty at first, is told of each validation.

    After each `interval` of steps, and the last, `measure` is asked for the mean log-likelihood of held-out rows,
    in nats, under the (averaged) weights as they would be kept: in evaluation mode, tightened, and settled on
    `some` training rows; whatever is drawn for it is drawn anew from `seed`, and alike each time. After `patience`
    validations without a better one training ends (0: never). Where the loop ends before the first validation the
    weights are those of the start.

    Raises TrainingDivergedError where no validation gave a finite number.
    """
    kept, losses = copy.deepcopy(state.model.state_dict()), []
    for progress in loop:
        losses.append(progress.loss)
        if progress.step % interval and progress.step != steps:
            continue
        held.training.append(-nats(sum(losses) / len(losses), some[0][0].numel()))
        with fixed_draws(seed):
            held.validation.append(measure(ready(state.best_weights, some)))
        held.steps.append(progress.step)
        losses = []
        if held.stale == 0:
            kept = copy.deepcopy(state.best_weights.state_dict())
        if 0 < patience <= held.stale:
            break
    if held.validation and held.best == -math.inf:
        raise TrainingDivergedError(
            f"held-out rows had no finite log-likelihood in any of {counted(len(held.validation), 'validation')}"
        )
    state.model.load_state_dict(kept)
    state.model.eval()


def ready(model: nn.Module, some: Pair) -> nn.Module:
    """Return a model as it is validated and kept: in evaluation mode, its norms tightened, settled on some rows."""
    tighten(model.eval())
    settle(model, *some)
    return model

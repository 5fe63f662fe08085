"""The loop. It takes steps and yields what happened; logging, sampling and saving belong to whoever draws from it."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from longflow.constraints import constrain
from longflow.errors import TrainingDivergedError
from longflow.objectives import Objective
from longflow.training.diagnose import offending_layer
from longflow.training.recipe import Recipe


@dataclass(frozen=True)
class Progress:
    """One step done: how many so far, the epoch, the loss before the step, the gradient's norm, the learning rate."""

    step: int
    epoch: int
    loss: float
    grad_norm: float
    lr: float


class State:
    """All that a training run changes: weights, their average, optimisers, the step, the random generators.

    `state_dict` holds all of it, so that a run loaded from it goes on bit by bit as if nothing had happened (on the
    same device, with the same batches).
    """

    def __init__(self, model: nn.Module, objective: Objective, recipe: Recipe) -> None:
        self.model, self.step = model, 0
        self.optimisers = {part: _adam(model.get_submodule(part), recipe) for part in objective.parts}
        self.average = AveragedModel(model, multi_avg_fn=_ema(recipe), use_buffers=False) if recipe.ema else None

    @property
    def best_weights(self) -> nn.Module:
        """The model to validate and keep: the average where there is one."""
        return self.model if self.average is None else self.average.module

    def state_dict(self) -> dict[str, Any]:
        """Return everything as tensors, numbers and dictionaries."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimisers": {part: optimiser.state_dict() for part, optimiser in self.optimisers.items()},
            "rng": {"cpu": torch.get_rng_state(), "cuda": cuda},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        for part, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][part])
        torch.set_rng_state(state["rng"]["cpu"])
        if state["rng"]["cuda"]:
            torch.cuda.set_rng_state_all(state["rng"]["cuda"])


def train(
    state: State,
    objective: Objective,
    batches: Callable[[int], tuple[Tensor, Tensor | None]],
    recipe: Recipe,
    steps: int,
    steps_per_epoch: int,
) -> Iterator[Progress]:
    """Take the steps from state.step up to `steps`, and yield after each.

    Raises TrainingDivergedError when a loss or gradient is not finite, before its part takes the step.
    """
    while state.step < steps:
        state.model.train()
        lr = recipe.lr_at(state.step, steps)
        x, context = batches(state.step)
        losses, norms = [], []
        for part, loss in objective(state.model, x, context, state.step / steps):
            optimiser = state.optimisers[part]
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            parameters = list(state.model.get_submodule(part).parameters())
            average_over_processes(parameters)
            norm = clip_grad_norm_(parameters, recipe.clip)
            numbers = torch.stack((loss.detach(), norm)).tolist()
            losses.append(numbers[0])
            norms.append(numbers[1])
            if not all(map(math.isfinite, numbers)):
                again = objective(state.model, x, context, state.step / steps)
                raise TrainingDivergedError(
                    f"step {state.step + 1}: loss {numbers[0]}, gradient norm {numbers[1]};"
                    f" {offending_layer(state.model, again, part)}"
                )
            for group in optimiser.param_groups:
                group["lr"] = lr
            optimiser.step()
            constrain(state.model.get_submodule(part))
        if state.average is not None:
            state.average.update_parameters(state.model)
        state.step += 1
        yield Progress(state.step, (state.step - 1) // steps_per_epoch + 1, sum(losses), max(norms), lr)


def average_over_processes(parameters: list[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes of torchrun; nothing where there is one process."""
    if not dist.is_initialized():
        return
    for p in parameters:
        if p.grad is not None:
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()


def _adam(part: nn.Module, recipe: Recipe) -> AdamW:
    return AdamW(
        part.parameters(),
        lr=recipe.lr,
        betas=(recipe.beta1, recipe.beta2),
        eps=recipe.eps,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def _ema(recipe: Recipe) -> Callable[[Any, Any, Any], None]:
    def update(average: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        torch._foreach_lerp_(average, current, 1 - recipe.ema_at(int(count)))

    return update

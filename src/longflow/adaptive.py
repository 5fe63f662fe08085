"""Initialisation from data, as an explicit step."""

from abc import ABC, abstractmethod
from typing import cast

import torch
from torch import Tensor, nn

from longflow.errors import UsageError


class Adaptive(nn.Module, ABC):
    """A layer that can set its parameters from the data that reach it."""

    @abstractmethod
    def adapt(self, x: Tensor) -> None:
        """Set the parameters from a batch x, in place."""


def adapt(model: nn.Module, x: Tensor, context: Tensor | None = None) -> None:
    """Initialise every adaptive layer of a new model from a batch, each from what the layers before it make of it.

    An explicit step, taken once: never on loading, sampling or resuming, and no flag remembers it. Dropout is off
    meanwhile. Raises UsageError where the forward pass does not call some adaptive layer (one under an `Inverse`).
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, Adaptive)}
    hooks = [m.register_forward_pre_hook(_adapt_first) for m in layers.values()]
    called: set[nn.Module] = set()
    hooks += [m.register_forward_pre_hook(lambda layer, inputs: called.add(layer)) for m in layers.values()]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(x, context)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    missed = [name for name, layer in layers.items() if layer not in called]
    if missed:
        raise UsageError(f"the forward pass does not call '{missed[0]}', which data can so not initialise")


def _adapt_first(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    cast(Adaptive, layer).adapt(inputs[0])


def moments(x: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of x over the batch and every axis on which `shape` is 1; deviations at least 1e-6."""
    axes = [0, *(axis for axis in range(2, x.dim()) if shape[axis] == 1)]
    std, mean = torch.std_mean(x, axes, keepdim=True, correction=0)
    return mean, std.clamp_min(1e-6)

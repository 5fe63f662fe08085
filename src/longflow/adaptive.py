"""Initialisation from data, as an explicit step."""

from abc import ABC, abstractmethod
from typing import cast

import torch
from torch import Tensor, nn

from longflow.errors import UsageError
from longflow.values import values_only

ADAPT_ROWS = 2048
"""Rows that are enough to initialise from, or to settle on."""


class Adaptive(nn.Module, ABC):
    """A layer that can set its parameters from the data that reach it."""

    @abstractmethod
    def adapt(self, x: Tensor) -> None:
        """Set the parameters from a batch x, in place."""


class Statistic(Adaptive):
    """A layer whose numbers are statistics of the data, not learned: as the weights change, `settle` takes them again.

    In training mode it uses the batch's own statistics; in evaluation mode the stored ones. Nothing is stored in
    passing: running averages lag behind the weights, and know nothing of averaged ones, which makes test likelihoods
    explode while those of training look fine.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, *shape))
        self.register_buffer("variance", torch.ones(1, *shape))

    def adapt(self, x: Tensor) -> None:
        """Store the statistics of a batch."""
        mean, std = moments(x, self.mean.shape)
        self.mean.copy_(mean)
        self.variance.copy_(std.square())


def has_statistics(model: nn.Module) -> bool:
    """Return whether a model has layers that `settle` would set."""
    return any(isinstance(m, Statistic) for m in model.modules())


def adapt(model: nn.Module, x: Tensor, context: Tensor | None = None) -> None:
    """Initialise every adaptive layer of a new model from a batch, each from what the layers before it make of it.

    An explicit step, taken once: never on loading, sampling or resuming, and no flag remembers it. Dropout is off
    meanwhile. Raises UsageError where the forward pass does not call some adaptive layer (one under an `Inverse`), or
    for rows that do not differ.
    """
    check_differing(x)
    _adapt(model, x, context, Adaptive)


def settle(model: nn.Module, x: Tensor, context: Tensor | None = None) -> None:
    """Take the statistics of every `Statistic` layer from a large batch, under the weights that the model has now."""
    if has_statistics(model):
        _adapt(model, x, context, Statistic)


def check_differing(x: Tensor) -> None:
    """Raise UsageError unless a batch to initialise from has at least two rows that differ."""
    if len(x) < 2 or bool((x == x[:1]).all()):
        came = f"{len(x)}" if len(x) < 2 else f"{len(x)} equal ones"
        raise UsageError(f"initialisation from data expects a batch of at least 2 rows that differ; {came} came")


def _adapt(model: nn.Module, x: Tensor, context: Tensor | None, kind: type[nn.Module]) -> None:
    layers = {name: m for name, m in model.named_modules() if isinstance(m, kind)}
    hooks = [m.register_forward_pre_hook(_adapt_first) for m in layers.values()]
    called: set[nn.Module] = set()
    hooks += [m.register_forward_pre_hook(lambda layer, inputs: called.add(layer)) for m in layers.values()]
    training = model.training
    try:
        with torch.no_grad(), values_only():
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
    """Return mean and deviation of x over the batch and every axis on which `shape` is 1.

    A feature that does not vary (by more than 1e-6) has the deviation 1: there is nothing to scale by.
    """
    axes = [0, *(axis for axis in range(2, x.dim()) if shape[axis] == 1)]
    std, mean = torch.std_mean(x, axes, keepdim=True, correction=0)
    return mean, torch.where(std > 1e-6, std, torch.ones_like(std))

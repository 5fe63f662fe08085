"""Weights that must stay in a set, as an explicit step after each step of the optimiser."""

from abc import ABC, abstractmethod

import torch
from torch import nn

TOLERANCE = 1e-3
MOST_ITERATIONS = 200


class Constrained(nn.Module, ABC):
    """A layer whose weights must stay in a set, such as that of the matrices of spectral norm at most c."""

    @abstractmethod
    def tighten(self) -> None:
        """Bring the weights back into the set as closely as is worth it for weights that are kept."""

    @abstractmethod
    def constrain(self, tolerance: float = TOLERANCE, most: int = MOST_ITERATIONS) -> None:
        """Bring the weights back into the set, in place; what is iterated, to a relative tolerance or `most` times."""


@torch.no_grad()
def constrain(model: nn.Module, tolerance: float = TOLERANCE, most: int = MOST_ITERATIONS) -> None:
    """Bring the weights of every constrained layer back into its set.

    A new model is in it, and one that is loaded. `train` does this after each step; a loop of your own must, too. The
    sets are convex, so that an average of weights needs it no more than the weights themselves.
    """
    for layer in _layers(model):
        layer.constrain(tolerance, most)


@torch.no_grad()
def tighten(model: nn.Module) -> None:
    """Bring the weights back as closely as is worth it for weights that are kept: `train` does so at validations."""
    for layer in _layers(model):
        layer.tighten()


def _layers(model: nn.Module) -> list[Constrained]:
    """Return the constrained layers that are trained; frozen ones stay as they are."""
    layers = (m for m in model.modules() if isinstance(m, Constrained))
    return [layer for layer in layers if any(p.requires_grad for p in layer.parameters())]

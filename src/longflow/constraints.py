"""Weights that must stay in a set, as an explicit step after each step of the optimiser."""

from abc import ABC, abstractmethod

import torch
from torch import nn

TOLERANCE = 1e-3
MOST_ITERATIONS = 200


class Constrained(nn.Module, ABC):
    """A layer whose weights must stay in a set, such as that of the matrices of spectral norm at most c."""

    @abstractmethod
    def constrain(self, tolerance: float = TOLERANCE, most: int = MOST_ITERATIONS) -> None:
        """Bring the weights back into the set, in place; what is iterated, to a relative tolerance or `most` times."""


@torch.no_grad()
def constrain(model: nn.Module, tolerance: float = TOLERANCE, most: int = MOST_ITERATIONS) -> None:
    """Bring the weights of every constrained layer back into its set.

    A new model is in it, and one that is loaded. `train` does this after each step; a loop of your own must, too. The
    sets are convex, so that an average of weights needs it no more than the weights themselves.
    """
    for layer in model.modules():
        if isinstance(layer, Constrained):
            layer.constrain(tolerance, most)

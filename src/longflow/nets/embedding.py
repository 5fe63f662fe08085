"""What a flow sees of a context: its numbers in standard deviations, or features that a network makes of them."""

import itertools
from math import prod

import torch
from torch import Tensor, nn

from longflow.errors import UsageError

CONVOLUTIONS = {2: nn.Conv1d, 3: nn.Conv2d}
"""By the axes of a context: series (C, L) and pictures (C, H, W)."""


class Standardiser(nn.Module):
    """(c - loc) / scale with fixed numbers, one for each feature: contexts (B, C, ...) in standard deviations.

    The numbers are buffers, which training sets from its contexts, so that a saved model takes contexts in the user's
    units, of any type of numbers.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        wide = (shape[0], *[1] * (len(shape) - 1))
        self.register_buffer("loc", torch.zeros(wide))
        self.register_buffer("scale", torch.ones(wide))

    def fit(self, contexts: Tensor) -> None:
        """Set the numbers from contexts (N, C, ...).

        A feature that varies by no more than the rounding of its numbers has the scale 1: there is nothing to scale by.
        """
        wide, axes = contexts.double(), [0, *range(2, contexts.dim())]
        scale, loc = torch.std_mean(wide, axes, correction=0)
        rounding = torch.finfo(self.loc.dtype).eps * wide.abs().amax(axes)
        scale = torch.where(scale > rounding, scale, torch.ones_like(scale))
        self.loc.copy_(loc.reshape(self.loc.shape))
        self.scale.copy_(scale.reshape(self.scale.shape))

    def forward(self, context: Tensor) -> Tensor:
        """Return the context in standard deviations from the mean, of its shape."""
        return (context.to(self.loc) - self.loc) / self.scale


def embedding(shape: tuple[int, ...], *, features: int = 0, width: int = 64, depth: int = 2) -> nn.Sequential:
    """Return a network from contexts (B, *shape), in the user's units, to features (B, F).

    They are standardised. With 0 features that is all, F = ∏ shape; else `depth` layers of `width` rectified units or,
    of series (C, L) and pictures (C, H, W), maps of 3-wide convolutions that halve the sides, and a linear layer.
    """
    for name, value, least in (("embed_features", features, 0), ("embed_width", width, 1), ("embed_depth", depth, 0)):
        if value < least:
            raise UsageError(f"expected {name} >= {least}; {value} came")
    if not features:
        return nn.Sequential(Standardiser(shape), nn.Flatten())
    if len(shape) > 1 and len(shape) not in CONVOLUTIONS:
        raise UsageError(f"an embedding expects contexts of shape (F,), (C, L) or (C, H, W); {shape} came")
    layers, numbers = _convolutions(shape, width, depth) if len(shape) > 1 else _units(shape[0], width, depth)
    return nn.Sequential(Standardiser(shape), *layers, nn.Linear(numbers, features))


def _units(features: int, width: int, depth: int) -> tuple[list[nn.Module], int]:
    """Return hidden layers and the number of their outputs."""
    widths = [features, *[width] * depth]
    pairs = itertools.pairwise(widths)
    return [layer for before, after in pairs for layer in (nn.Linear(before, after), nn.ReLU())], widths[-1]


def _convolutions(shape: tuple[int, ...], width: int, depth: int) -> tuple[list[nn.Module], int]:
    """Return convolutions that halve the sides, their maps laid end to end, and how many numbers that are."""
    convolution, sides, layers = CONVOLUTIONS[len(shape)], shape[1:], []
    for before in [shape[0], *[width] * depth][:depth]:
        layers += [convolution(before, width, 3, stride=2, padding=1), nn.ReLU()]
        sides = tuple((side + 1) // 2 for side in sides)
    return [*layers, nn.Flatten()], (width if depth else shape[0]) * prod(sides)

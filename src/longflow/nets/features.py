"""The networks of a representation: maps of features, what is read from them, and scores of pairs."""

import torch
from torch import Tensor, nn

from longflow.nets.resnet import BatchNorm2d

STAGES = 3
LEAST_SIDE = 3
"""Positions along a side that a halving must leave: with fewer there is little that is local."""


class Maps(nn.Module):
    """Three normalised 3×3 convolutions of width, 2 width and 4 width maps, the first halved while sides allow it.

    Maps (B, C, H, W) to (B, 4 width, h, w); `space` is (h, w). It computes channels-last, which is faster on a CPU.
    """

    def __init__(self, shape: tuple[int, ...], *, width: int, halvings: int) -> None:
        super().__init__()
        self.features, self.space = 4 * width, shape[1:]
        channels, layers = shape[0], []
        for stage in range(STAGES):
            layers += normalised(channels, channels := width * 2**stage)
            if stage < halvings and min(self.space) // 2 >= LEAST_SIDE:
                layers.append(nn.MaxPool2d(2))
                self.space = tuple(side // 2 for side in self.space)
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps."""
        return self.layers(x.contiguous(memory_format=torch.channels_last))


class Summary(nn.Module):
    """Two normalised 3×3 convolutions, the largest value of each map, and a linear layer: (B, C, H, W) to (B, out)."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        convs = nn.Sequential(*normalised(channels, channels), *normalised(channels, channels))
        self.layers = convs.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.last = nn.Linear(channels, features)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        return self.last(self.layers(x).amax((2, 3)))


def normalised(before: int, after: int) -> list[nn.Module]:
    """Return a 3×3 convolution, the normalisation of its maps by batches, and a leaky rectifier."""
    return [nn.Conv2d(before, after, 3, padding=1, bias=False), BatchNorm2d(after), nn.LeakyReLU(0.2)]


def scores(features: int, units: int) -> nn.Sequential:
    """Return two hidden layers and a score: (..., features) to (..., 1), of a pair that is laid end to end."""
    hidden = [nn.Linear(features, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(units, 1))

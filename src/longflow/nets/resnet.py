"""RealNVP's residual conditioner."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longflow.adaptive import Statistic

EPSILON = 1e-5


class BatchNorm2d(Statistic):
    """Batch normalisation of maps with a learned scale and shift a channel; its statistics are as `Statistic` says."""

    def __init__(self, channels: int) -> None:
        super().__init__((channels, 1, 1))
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised maps, of the shape of x."""
        mean, variance = (None, None) if self.training else (self.mean.flatten(), self.variance.flatten())
        return F.batch_norm(x, mean, variance, self.scale, self.shift, training=self.training, eps=EPSILON)


class WeightNormConv(nn.Module):
    """A convolution with weights v / ‖v‖ for each output channel, times a learned magnitude where asked.

    (Salimans & Kingma 2016; RealNVP's code learns the magnitude only where no batch normalisation follows.)
    """

    def __init__(self, channels_in: int, channels_out: int, side: int, *, magnitude: bool) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.randn(channels_out, channels_in, side, side))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        self.magnitude = nn.Parameter(torch.ones(channels_out, 1, 1, 1)) if magnitude else None
        self.padding = side // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels_in, H, W) to (B, channels_out, H, W)."""
        weight = self.v / torch.linalg.vector_norm(self.v, dim=(1, 2, 3), keepdim=True)
        return F.conv2d(x, weight if self.magnitude is None else weight * self.magnitude, self.bias, 1, self.padding)


class Block(nn.Module):
    """x plus two 3×3 convolutions, each after normalisation and ReLU."""

    def __init__(self, width: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        first, second = (WeightNormConv(width, width, 3, magnitude=False) for _ in range(2))
        self.layers = nn.Sequential(norm(width), nn.ReLU(), first, norm(width), nn.ReLU(), second)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of the shape of x."""
        return x + self.layers(x)


class ResNet(nn.Module):
    """A 3×3 convolution and residual blocks, all of them summed through 1×1 convolutions (RealNVP's code).

    Maps (B, channels_in, H, W) to (B, channels_out, H, W); `norm` makes the normalisation of so many channels.
    It computes channels-last, which is faster on a CPU. Its output starts at random, of the order of 1.
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, width: int, blocks: int, norm: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.first = WeightNormConv(channels_in, width, 3, magnitude=False)
        self.blocks = nn.ModuleList(Block(width, norm) for _ in range(blocks))
        self.skips = nn.ModuleList(WeightNormConv(width, width, 1, magnitude=True) for _ in range(blocks + 1))
        last = WeightNormConv(width, channels_out, 1, magnitude=True)
        self.last = nn.Sequential(norm(width), nn.ReLU(), last)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Return the parameters, of shape (B, channels_out, H, W)."""
        x = self.first(x.contiguous(memory_format=torch.channels_last))
        total = self.skips[0](x)
        for block, skip in zip(self.blocks, self.skips[1:], strict=True):
            x = block(x)
            total = total + skip(x)
        return self.last(total)

"""Glow's convolutional conditioner."""

import torch
from torch import Tensor, nn

from longflow.adaptive import Adaptive, moments

LOG_SCALE_FACTOR = 3.0
"""Glow's code multiplies learned log-scales by 3, which speeds them up."""


class ChannelNorm(Adaptive):
    """x · exp(3 s) + t with learned s and t a channel, set from data to give mean 0 and deviation 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.t = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def adapt(self, x: Tensor) -> None:
        """Set s and t from a batch."""
        mean, std = moments(x, self.s.shape)
        self.s.copy_(-std.log() / LOG_SCALE_FACTOR)
        self.t.copy_(-mean / std)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised maps, of the shape of x."""
        return x * (LOG_SCALE_FACTOR * self.s).exp() + self.t


class ZeroConv(nn.Module):
    """A 3×3 convolution that starts at zero, its output times exp(3 s) with a learned s a channel."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.s = nn.Parameter(torch.zeros(1, channels_out, 1, 1))
        nn.init.zeros_(self.conv.weight)
        self.conv.bias = nn.Parameter(torch.zeros(channels_out))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map (B, channels_in, H, W) to (B, channels_out, H, W)."""
        return self.conv(x) * (LOG_SCALE_FACTOR * self.s).exp()


class ConvNet(nn.Module):
    """3×3, 1×1 and a zero 3×3 convolution, each of the first two normalised and rectified (Glow's code, `f`).

    Maps (B, channels_in, H, W) to (B, channels_out, H, W). A context (B, context) is repeated over space and appended
    to the input. It computes channels-last, which is up to twice as fast on a CPU.
    """

    def __init__(self, channels_in: int, channels_out: int, *, width: int, context: int = 0) -> None:
        super().__init__()
        self.context = context
        first = nn.Conv2d(channels_in + context, width, 3, padding=1, bias=False)
        second = nn.Conv2d(width, width, 1, bias=False)
        for conv in (first, second):
            nn.init.normal_(conv.weight, std=0.05)
        self.layers = nn.Sequential(
            first,
            ChannelNorm(width),
            nn.ReLU(),
            second,
            ChannelNorm(width),
            nn.ReLU(),
            ZeroConv(width, channels_out),
        ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the parameters, of shape (B, channels_out, H, W)."""
        if self.context and context is not None:
            x = torch.cat((x, context[:, :, None, None].expand(-1, -1, *x.shape[2:])), 1)
        return self.layers(x.contiguous(memory_format=torch.channels_last))

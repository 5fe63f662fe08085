"""Velocity fields: networks of a point and a time."""

import itertools
import math
from collections.abc import Callable
from math import prod

import torch
from torch import Tensor, nn


class ConcatSquash(nn.Module):
    """v(x, t; context) by `depth` hidden layers of `width` units and a linear output, each gated and shifted by time.

        h ← (W h + b) ⊙ σ(G s + g) + H s,   s = (t, sin πt, cos πt, …, sin kπt, cos kπt, context)

    FFJORD's layer (Grathwohl et al. 2019, its code's "concatsquash"), with `frequencies` k = 0; more of them let a
    field change faster with time. An event of any shape, (B, ...) of `features` numbers, is seen as a vector. The time
    of each row is (B,), a context (B, context). The output starts at nought, so that the flow starts at the identity.
    Hidden layers start with the variance of He et al. (2015) and gates nearly open, σ(2): at torch's values a signal
    would shrink fivefold in each layer, and the field would see time rather than x for thousands of steps.
    """

    def __init__(
        self,
        features: int,
        *,
        width: int,
        depth: int,
        context: int = 0,
        activation: Callable[[], nn.Module] = nn.Tanh,
        frequencies: int = 0,
    ) -> None:
        super().__init__()
        self.frequencies = frequencies
        seen = 1 + 2 * frequencies + context
        widths = [features, *[width] * depth, features]
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
        gates = [nn.Linear(seen, b) for b in widths[1:]]
        shifts = [nn.Linear(seen, b, bias=False) for b in widths[1:]]
        self.layers, self.shifts = nn.ModuleList(layers), nn.ModuleList(shifts)
        self.gates = nn.ModuleList(gates)
        self.activations = nn.ModuleList([*(activation() for _ in range(depth)), nn.Identity()])
        for layer in layers[:-1]:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        for gate in gates:
            nn.init.constant_(gate.bias, 2.0)
        for last in (layers[-1].weight, layers[-1].bias, shifts[-1].weight):
            nn.init.zeros_(last)

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the velocity, of the shape of x."""
        seen = self._seen(t, context)
        h = x.reshape(len(x), prod(x.shape[1:]))
        for layer, gate, shift, activation in zip(self.layers, self.gates, self.shifts, self.activations, strict=True):
            h = activation(layer(h) * torch.sigmoid(gate(seen)) + shift(seen))
        return h.reshape(x.shape)

    def _seen(self, t: Tensor, context: Tensor | None) -> Tensor:
        angles = math.pi * t[:, None] * torch.arange(1, self.frequencies + 1, dtype=t.dtype, device=t.device)
        times = (t[:, None], angles.sin(), angles.cos())
        return torch.cat(times if context is None else (*times, context), 1)

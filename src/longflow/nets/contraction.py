"""Networks whose slope is bounded below 1: the branches of invertible residual blocks."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import prod
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longflow.nets.lipschitz import LipschitzConv, LipschitzLayer, LipschitzLinear, check_coefficient

Layers = Callable[[int, int, int], LipschitzLayer]
"""Makes a layer from features in, features out and (for convolutions) the side of its kernel."""


def linear_layers(coefficient: float) -> Layers:
    """Return what makes fully connected layers of norm at most `coefficient`, in (0, 1)."""
    check_coefficient(coefficient)
    return lambda features_in, features_out, side: LipschitzLinear(features_in, features_out, coefficient)


def conv_layers(coefficient: float, space: tuple[int, ...], *, periodic: bool = False) -> Layers:
    """Return what makes convolutions of maps of size `space`, of norm at most `coefficient`, in (0, 1)."""
    check_coefficient(coefficient)
    return lambda channels_in, channels_out, side: LipschitzConv(
        channels_in, channels_out, side, coefficient, space=space, periodic=periodic
    )


class Branch(nn.Module, ABC):
    """A map g of (x, context), of the shape of x, of slope in x at most `lipschitz` < 1; its rows do not meet.

    `slope_of` returns the bound on the slope where its Lipschitz layers, in the order of `modules`, have these norms.
    """

    lipschitz: float

    @abstractmethod
    def slope_of(self, norms: Sequence[float]) -> float:
        """Return the bound on the slope where the layers' norms are these."""


class Contraction(Branch):
    """A plain network g of (x, context) whose slope in x is at most `lipschitz`, the product of its layers'.

    Maps (B, features, ...) to the same shape, by `depth` hidden layers of `width` units: kernels of side 3, 1, …, 1, 3
    where they are convolutions. A context (B, context) shifts the first hidden layer. With `preactivate` an activation
    comes first, too.
    """

    def __init__(
        self,
        layers: Layers,
        features: int,
        *,
        width: int,
        depth: int,
        activation: Callable[[], nn.Module],
        preactivate: bool = False,
        context: int = 0,
    ) -> None:
        super().__init__()
        before = activation() if preactivate else None
        activations = [activation() for _ in range(depth)]
        widens = [1 if before is None else _widens(before), *map(_widens, activations)]
        sizes = [features, *[width] * depth]
        outs = [*[width] * depth, features]
        sides = [3, *[1] * (depth - 1), 3]
        self.before = before
        self.linear = nn.ModuleList(
            layers(size * wide, out, side) for size, wide, out, side in zip(sizes, widens, outs, sides, strict=True)
        )
        self.activations = nn.ModuleList(activations)
        self.context = nn.Linear(context, width, bias=False) if context else None
        self.lipschitz = self.slope_of([_coefficient(layer) for layer in self.linear])

    def slope_of(self, norms: Sequence[float]) -> float:
        return prod(norms)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return g(x), of the shape of x."""
        h = self.linear[0](x if self.before is None else self.before(x))
        if self.context is not None and context is not None:
            h = h + self.context(context).reshape(*h.shape[:2], *[1] * (h.dim() - 2))
        for activation, layer in zip(self.activations, self.linear[1:], strict=True):
            h = layer(activation(h))
        return h


class DenseContraction(Branch):
    """A network in which each layer's output stands beside its input, of slope at most `lipschitz` (i-DenseNet).

        h ← (η₁ h, η₂ φ(W h + b)) / √(η₁² + η₂²),  η = softplus of learned numbers;   g = W_last h

    (Perugachi-Diaz, Tomczak & Bhulai 2021, sections 3.1 and 3.2.) Each of `depth` layers adds about `growth` features.
    """

    def __init__(
        self,
        layers: Layers,
        features: int,
        *,
        growth: int,
        depth: int,
        activation: Callable[[], nn.Module],
        context: int = 0,
    ) -> None:
        super().__init__()
        self.activations = nn.ModuleList(activation() for _ in range(depth))
        wide = _widens(activation())
        grown = max(1, growth // wide)
        sizes = [features + k * grown * wide for k in range(depth + 1)]
        self.linear = nn.ModuleList(layers(size, grown, 3) for size in sizes[:-1])
        self.linear.append(layers(sizes[-1], features, 1))
        self.context = nn.Linear(context, grown, bias=False) if context else None
        self.eta = nn.Parameter(torch.zeros(depth, 2))
        self.lipschitz = _coefficient(self.linear[-1])

    def shares(self) -> Tensor:
        """Return what each layer keeps of its input and takes of its output, (depth, 2), of norm 1."""
        return F.normalize(F.softplus(self.eta), dim=1)

    def slope_of(self, norms: Sequence[float]) -> float:
        of_layers = [
            (kept**2 + (taken * norm) ** 2) ** 0.5
            for (kept, taken), norm in zip(self.shares().tolist(), norms[:-1], strict=True)
        ]
        return prod(of_layers) * norms[-1]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return g(x), of the shape of x."""
        shares = self.shares()
        for k, activation in enumerate(self.activations):
            h = self.linear[k](x)
            if k == 0 and self.context is not None and context is not None:
                h = h + self.context(context).reshape(*h.shape[:2], *[1] * (h.dim() - 2))
            x = torch.cat((shares[k, 0] * x, shares[k, 1] * activation(h)), 1)
        return self.linear[-1](x)


def _widens(activation: nn.Module) -> int:
    return cast(int, activation.widens)


def _coefficient(layer: nn.Module) -> float:
    return cast(LipschitzLayer, layer).coefficient

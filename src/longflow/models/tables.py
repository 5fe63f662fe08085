"""What the models of tables share: mixing, masked networks, and pictures seen as vectors."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import nn

from longflow.bijections import Bijection, Chain, Flatten, Permute, PLULinear, Reverse, Rotation, Under
from longflow.bijections.linear import random_permutation
from longflow.distributions import Flow, StandardNormal
from longflow.errors import UsageError, choose
from longflow.models.checks import at_least
from longflow.nets import MADE, ResMADE
from longflow.nets.causal import Causal

Mixing = Literal["reverse", "shuffle", "lu", "rotation"]
Net = Literal["made", "resmade"]
Activation = Literal["relu", "tanh", "elu"]

MIXINGS: dict[str, Callable[[int], Bijection]] = {
    "reverse": lambda features: Reverse(),
    "shuffle": lambda features: Permute(torch.randperm(features, device="cpu").tolist()),
    "lu": lambda features: PLULinear(features, start=random_permutation),
    "rotation": Rotation,
}
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU}
NETS = ("made", "resmade")


def mixing_of(kind: str) -> Callable[[int], Bijection]:
    """Return what mixes so many features."""
    return MIXINGS[choose("mixing", kind, MIXINGS)]


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The masked networks of a model: of `depth` hidden layers, or residual blocks, of `hidden` units."""

    model: str
    net: str
    hidden: int
    depth: int
    activation: str
    dropout: float
    context: int

    def __post_init__(self) -> None:
        choose("net", self.net, NETS)
        choose("activation", self.activation, ACTIVATIONS)
        at_least(self.model, 1, hidden=self.hidden, depth=self.depth)
        at_least(self.model, 0, context=self.context)
        if not 0 <= self.dropout < 1:
            raise UsageError(f"{self.model} expects 0 <= dropout < 1; {self.dropout} came")

    def masked(self, features: int, parameters: int) -> Causal:
        """Return a network for so many parameters a feature."""
        activation = ACTIVATIONS[self.activation]
        if self.net == "made":
            return MADE(
                features,
                parameters,
                hidden=self.hidden,
                depth=self.depth,
                activation=activation,
                dropout=self.dropout,
                context=self.context,
            )
        return ResMADE(
            features,
            parameters,
            hidden=self.hidden,
            blocks=self.depth,
            activation=activation,
            dropout=self.dropout,
            context=self.context,
        )


def flow_of(shape: tuple[int, ...], bijection: Bijection, context: int) -> Flow:
    """Return the flow of a bijection of vectors, with a standard normal base; a picture is seen as a vector."""
    seen = bijection if len(shape) == 1 else Under(Flatten(shape), bijection)
    return Flow(seen, StandardNormal(shape), (context,) if context else None)


def stacked(
    shape: tuple[int, ...],
    layer: Callable[[], Bijection],
    layers: int,
    mix: Callable[[int], Bijection],
    context: int,
) -> Flow:
    """Return the flow of so many new layers, with mixing between them."""
    parts = [layer()]
    for _ in range(layers - 1):
        parts += [mix(prod(shape)), layer()]
    return flow_of(shape, Chain(*parts), context)


def numbers_of(model: str, shape: tuple[int, ...]) -> int:
    """Return the numbers of an event; raise UsageError unless it is a vector (D,) or a picture (C, H, W)."""
    if len(shape) not in (1, 3):
        raise UsageError(f"{model} expects events of shape (D,) or (C, H, W); {shape} came")
    return prod(shape)

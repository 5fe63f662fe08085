"""NICE: non-linear independent components estimation (Dinh, Krueger & Bengio, ICLR workshop 2015)."""

import math
from collections.abc import Callable
from math import prod
from typing import Any, Literal

from longflow.bijections import (
    Bijection,
    Chain,
    Coupling,
    Flatten,
    Halves,
    Interleave,
    Inverse,
    Learned,
    Scale,
    Shift,
    Under,
)
from longflow.distributions import Flow, StandardLogistic, StandardNormal
from longflow.errors import UsageError, choose
from longflow.models.checks import at_least
from longflow.nets import MLP

PRIORS = {"logistic": StandardLogistic, "normal": StandardNormal}
PARTITIONS = {"interleaved": Interleave, "halves": Halves}
DIRECTIONS: dict[str, Callable[[], Bijection]] = {"adds": Shift, "subtracts": lambda: Inverse(Shift())}
LASTS = ("linear", "relu")
INITS = ("torch", "glorot")

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "essay": {"prior": "normal", "last": "relu", "init": "glorot", "encoder": "subtracts"},
    "digits": {"couplings": 8, "hidden": 256, "depth": 2, "dropout": 0.2},
}


def nice(
    shape: tuple[int, ...],
    *,
    prior: Literal["logistic", "normal"] = "logistic",
    couplings: int = 4,
    hidden: int | None = None,
    depth: int = 5,
    partition: Literal["interleaved", "halves"] = "interleaved",
    last: Literal["linear", "relu"] = "linear",
    init: Literal["torch", "glorot"] = "torch",
    encoder: Literal["adds", "subtracts"] = "adds",
    dropout: float = 0.0,
    context: int = 0,
) -> Flow:
    """Additive couplings of alternating halves, then one learned scale for each dimension.

    The defaults are the paper's for MNIST; the preset "essay" is Su Jianlin's variant (细水长flow, NICE), whose
    conditioners end in a ReLU and are subtracted by the encoder, so that the generator adds positive numbers. The
    preset "digits" is small and regularised, chosen on the validation split of the digits data.

    Args:
        shape: Shape of an event, (D,) or (C, H, W), of at least two numbers; an image is seen as a vector.
        prior: Base density of the latent.
        couplings: Number of additive couplings; the half that moves alternates.
        hidden: Units in a hidden layer of a conditioner; default 64 √D rounded up, at most the paper's 1000.
        depth: Hidden layers of a conditioner.
        partition: Halves of even and odd dimensions, or the first and the second half.
        last: Output layer of a conditioner.
        init: How a conditioner's hidden layers start.
        encoder: Whether the encoder adds or subtracts the conditioner's output.
        dropout: Share of hidden units dropped in training.
        context: Features of a context vector that the conditioners see; 0 for none.
    """
    dims = prod(shape)
    _check(dims, couplings, hidden, depth, dropout, context)
    width = min(1000, 64 * math.ceil(math.sqrt(dims))) if hidden is None else hidden
    view = PARTITIONS[choose("partition", partition, PARTITIONS)]
    transform = DIRECTIONS[choose("encoder", encoder, DIRECTIONS)]
    base = PRIORS[choose("prior", prior, PRIORS)]
    choose("last layer", last, LASTS)
    choose("init", init, INITS)

    def coupling(k: int) -> Bijection:
        conditioner = MLP(
            dims // 2,
            dims - dims // 2,
            hidden=width,
            depth=depth,
            last=last,
            init=init,
            dropout=dropout,
            context=context,
        )
        return Under(view(k % 2), Coupling(transform(), conditioner))

    chain = Chain(*map(coupling, range(couplings)), Learned(Scale(), (dims,), deviation=base.deviation))
    vector = len(shape) == 1
    return Flow(chain if vector else Under(Flatten(shape), chain), base(shape), (context,) if context else None)


def _check(dims: int, couplings: int, hidden: int | None, depth: int, dropout: float, context: int) -> None:
    if dims < 2:
        raise UsageError(f"nice expects events of at least 2 numbers; {dims} came")
    at_least("nice", 1, couplings=couplings, hidden=hidden, depth=depth)
    at_least("nice", 0, context=context)
    if not 0 <= dropout < 1:
        raise UsageError(f"nice expects 0 <= dropout < 1; {dropout} came")

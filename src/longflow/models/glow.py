"""Glow: generative flow with invertible 1×1 convolutions (Kingma & Dhariwal, NeurIPS 2018)."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch

from longflow.bijections import (
    Affine,
    Bijection,
    Chain,
    Coupling,
    ExpLinear,
    FactorOut,
    FreeLinear,
    HalfToOne,
    Learned,
    Permute,
    PLULinear,
    QRLinear,
    Reverse,
    ScaledTanh,
    Shift,
    SigmoidPlusTwo,
    Squeeze,
    Under,
)
from longflow.bijections.memory import Memory, Trunk
from longflow.distributions import ClassNormal, Flow, StandardNormal
from longflow.errors import UsageError, choose
from longflow.models.checks import at_least, scales_of, vector_or_picture
from longflow.nets import MLP, ConvNet, ZeroConv

COUPLINGS: dict[str, Callable[[], Shift | Affine]] = {
    "affine": lambda: Affine(SigmoidPlusTwo()),
    "additive": Shift,
    "affine-half": lambda: Affine(HalfToOne()),
    "affine-tanh": lambda: Affine(ScaledTanh(1.0)),
}
MIXINGS: dict[str, Callable[[int], Bijection]] = {
    "reverse": lambda features: Reverse(),
    "shuffle": lambda features: Permute(torch.randperm(features, device="cpu").tolist()),
    "free": FreeLinear,
    "plu": PLULinear,
    "qr": QRLinear,
    "exp": ExpLinear,
}
CLASS_PRIORS = ("every", "last")
MOST_SCALES = 3

PRESETS: dict[str, dict[str, Any]] = {
    "cifar10": {"scales": 3, "depth": 32, "width": 512, "coupling": "affine", "mixing": "plu"},
    "essay": {"scales": 3, "depth": 6, "width": 512, "coupling": "additive", "mixing": "shuffle"},
    "digits": {"scales": 2, "depth": 8, "width": 64},
}


def glow(
    shape: tuple[int, ...],
    *,
    scales: int | None = None,
    depth: int = 8,
    width: int = 128,
    coupling: Literal["affine", "additive", "affine-half", "affine-tanh"] = "affine",
    mixing: Literal["reverse", "shuffle", "free", "plu", "qr", "exp"] = "plu",
    memory: Memory = "full",
    trunk: Trunk = "float64",
    classes: int = 0,
    class_prior: Literal["every", "last"] = "every",
    context: int = 0,
) -> Flow:
    """Scales of steps (normalise, mix, couple), between which half of the features is finished.

    Each scale squeezes space into channels, takes `depth` steps, and standardises the half that is finished by a
    network of the half that goes on (Glow's split; 细水长flow's conditional prior). The last scale ends in a learned
    mean and deviation a channel. For vectors there is one scale, of fully connected conditioners.

    Unlike Glow's code, convolutions see no border channel, and the parameters of a step are x·scale + shift, not
    (x + shift)·scale. The preset "cifar10" is the paper's for CIFAR-10; "essay" that of Su Jianlin's demo, whose
    conditioners are not normalised, as these are.

    Args:
        shape: Shape of an event, (D,) or (C, H, W), of at least two numbers.
        scales: Scales L of a picture, whose sides must divide by 2^L; by default as many as they allow, at most 3.
        depth: Steps K in each scale.
        width: Channels (or units) of a conditioner's hidden layers.
        coupling: What a step does to the second half of the features: scale in (0, 1) by σ(s + 2), additive only,
            scale in (½, 1), or log-scale γ tanh s.
        mixing: Order of the features before a coupling: reversed, shuffled, or mixed by a matrix that is free,
            factorised as PLU or QR, or a matrix exponential.
        memory: What the gradient keeps: everything, each step's input, or (reversible) the end of each scale only.
        trunk: Type in which a scale carries values from step to step; the conditioners compute in the model's.
        classes: Classes of labels on which the prior is conditioned, beside an auxiliary classifier of what it
            conditions; 0 for none.
        class_prior: What the classes condition: mean and deviation of every number of the latent, or (the paper's) of
            every channel of the last scale.
        context: Features of a context vector that the conditioners see; 0 for none.
    """
    _check(shape, scales, depth, width, classes, context)
    transform = COUPLINGS[choose("coupling", coupling, COUPLINGS)]
    mix = MIXINGS[choose("mixing", mixing, MIXINGS)]
    choose("class prior", class_prior, CLASS_PRIORS)
    space = tuple([1] * (len(shape) - 1))

    def net(features: int, parameters: int) -> torch.nn.Module:
        first, second = features // 2, features - features // 2
        if space:
            return ConvNet(first, parameters * second, width=width, context=context)
        return MLP(first, parameters * second, hidden=width, depth=2, context=context)

    def step(features: int) -> Bijection:
        moved = transform()
        couple = Coupling(moved, net(features, moved.parameters_per_feature))
        return Chain(Learned(Affine(), (features, *space)), mix(features), couple)

    def steps(features: int) -> Bijection:
        return Chain(*(step(features) for _ in range(depth)), memory=memory, trunk=trunk)

    def scale(features: int, left: int) -> Bijection:
        if left == 1:
            return Under(Squeeze(), Chain(steps(4 * features), Learned(Affine(), (4 * features, *space))))
        prior = Coupling(Affine(), ZeroConv(2 * features, 4 * features))
        return Under(Squeeze(), Chain(steps(4 * features), prior, FactorOut(scale(2 * features, left - 1))))

    def whole() -> Bijection:
        return (
            scale(shape[0], scales_of("glow", shape, scales, MOST_SCALES))
            if space
            else Chain(steps(shape[0]), Learned(Affine(), shape))
        )

    bijection = whole()
    if classes:
        every = class_prior == "every" or not space
        where = torch.arange(math.prod(shape))[:, None] if every else _last(bijection, shape)
        return Flow(bijection, ClassNormal(shape, where, classes))
    return Flow(bijection, StandardNormal(shape), (context,) if context else None)


def _last(bijection: Bijection, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the places, in a flattened latent, of the last scale as it is squeezed there, (4C, H/2, W/2)."""
    return Squeeze().arrange(bijection.scales(torch.arange(math.prod(shape)).reshape(1, *shape))[-1])[0]


def _check(shape: tuple[int, ...], scales: int | None, depth: int, width: int, classes: int, context: int) -> None:
    vector_or_picture("glow", shape)
    at_least("glow", 1, depth=depth, width=width, scales=scales)
    at_least("glow", 0, context=context, classes=classes)
    if classes and context:
        raise UsageError("glow expects classes or context, not both")

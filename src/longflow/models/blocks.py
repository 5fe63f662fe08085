"""Stacks of invertible residual blocks, which i-ResNets and residual flows share."""

from dataclasses import dataclass
from math import prod

from longflow.bijections import Affine, Bijection, Learned, Residual
from longflow.bijections.series import Series
from longflow.errors import choose
from longflow.models.checks import scales_of
from longflow.nets import Contraction, DenseContraction, conv_layers, linear_layers
from longflow.nets.lipschitz import activation_of

BORDERS = ("zeros", "periodic")
MOST_SCALES = 3
EVALUATION_RATE = 2.0


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """How residual blocks are made; the builders' docstrings say what the numbers mean."""

    width: int
    depth: int
    coefficient: float
    activation: str
    growth: int
    border: str
    series: Series
    evaluation_terms: int
    exact_dims: int
    context: int

    def __post_init__(self) -> None:
        choose("border", self.border, BORDERS)

    def residual(self, shape: tuple[int, ...], *, preactivate: bool, width: int | None = None) -> Residual:
        """Return one block for events of `shape`, (D,) or (C, H, W)."""
        activation = activation_of(self.activation)
        space = shape[1:]
        layers = (
            conv_layers(self.coefficient, space, periodic=self.border == "periodic")
            if space
            else linear_layers(self.coefficient)
        )
        branch = (
            DenseContraction(
                layers, shape[0], growth=self.growth, depth=self.depth, activation=activation, context=self.context
            )
            if self.growth
            else Contraction(
                layers,
                shape[0],
                width=width or self.width,
                depth=self.depth,
                activation=activation,
                preactivate=preactivate,
                context=self.context,
            )
        )
        roulette = "poisson" if self.series.roulette == "none" else self.series.roulette
        evaluation = Series(self.evaluation_terms, roulette, EVALUATION_RATE, probe=self.series.probe)
        return Residual(branch, prod(shape), training=self.series, evaluation=evaluation, exact_dims=self.exact_dims)

    def stage(self, shape: tuple[int, ...], count: int, *, first: bool, width: int | None = None) -> list[Bijection]:
        """Return `count` blocks, each after a learned scale; of pictures all but the first begin with an activation."""
        parts: list[Bijection] = []
        for k in range(count):
            preactivate = len(shape) == 3 and not (first and k == 0)
            parts += [norm_of(shape), self.residual(shape, preactivate=preactivate, width=width)]
        return parts


def norm_of(shape: tuple[int, ...]) -> Learned:
    """Return a learned scale and shift a feature (ActNorm)."""
    return Learned(Affine(), (shape[0], *[1] * (len(shape) - 1)))


def squeezes_between(model: str, shape: tuple[int, ...], scales: int | None) -> int:
    """Return the number of squeezes between the scales asked for, or as many as the sides allow, one less than scales.

    Raises UsageError unless both sides of a picture divide by 2^(scales - 1). Vectors have one scale.
    """
    if len(shape) == 1 or scales == 1 or (scales is None and any(side % 2 for side in shape[1:])):
        return 0
    return scales_of(model, shape, None if scales is None else scales - 1, MOST_SCALES - 1)

"""Angles: numbers of period 2B, represented in [-B, B)."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from longflow.bijections.bijection import Example
from longflow.bijections.elementwise import Elementwise, Theta


class CircularShift(Elementwise):
    """z = x + t on the circle of circumference 2B (Rezende et al. 2020, §2.1.3). The context is t; log|dz/dx| = 0.

    Angles are in [-B, B), by default radians in [-π, π); those of other periods are brought there.
    """

    parameters_per_feature = 1

    def __init__(self, bound: float = math.pi) -> None:
        super().__init__()
        self.bound = bound

    def ahead(self, x: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        (t,) = theta
        return wrapped(x + t, self.bound), x.new_zeros(())

    def back(self, z: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        (t,) = theta
        return wrapped(z - t, self.bound), z.new_zeros(())

    def extra_repr(self) -> str:
        return f"bound={self.bound}"

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(), (3,), (3,), domain=(-3, 3))
        yield Example(cls(0.5), (2, 2, 2), (2, 1, 1), domain=(-0.5, 0.5))


def wrapped(angle: Tensor, bound: float) -> Tensor:
    """Return the angle of period 2B, in [-B, B); one that is there already is returned as it is."""
    within = (angle >= -bound) & (angle < bound)
    turned = torch.remainder(angle + bound, 2 * bound) - bound
    # A remainder just below 2B may round to it.
    return torch.where(within, angle, torch.where(turned < bound, turned, turned - 2 * bound))

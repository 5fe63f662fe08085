"""The inverse of an increasing elementwise map that has none in closed form."""

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from longflow.bijections.elementwise import Elementwise, Theta

Increasing = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From x to f(x) and log f'(x), elementwise."""

STEEPEST = 60.0
"""Bound on -log f' in the gradient of the root: where f is flat to that point, x has no gradient worth the name."""


@dataclass(frozen=True)
class Steps:
    """How a root is sought: in [-reach, reach], by so many halvings and so many safeguarded Newton steps after them."""

    reach: float
    halvings: int
    newtons: int


SINGLE = Steps(reach=1e30, halvings=26, newtons=4)
"""The bracket is then 2e-6 wide, relative to 1 + |x|, before Newton's first step."""

DOUBLE = Steps(reach=1e100, halvings=32, newtons=6)
"""1e-7."""


def root(f: Increasing, z: Tensor) -> Tensor:
    """Return x with f(x) = z for a strictly increasing f from the line onto the line, elementwise.

    x is found between -1e30 and 1e30 (float64: ±1e100), to the rounding of its type; where f is so flat that it rounds
    to z on a whole interval, somewhere in that; where it bends so sharply that Newton's steps do not help,
    |f''/f'| (1 + |x|) above 1e5 (1e6), to 1e-6 (1e-7) of 1 + |x|. Of an infinite z it is that infinity. A root beyond
    the reach saturates: ±1e30 (±1e100), to 1e-6 of it, is returned, which is no root. f may overflow to ±inf, but must
    not be NaN. Always 30 evaluations in float32 and 38 in float64, without a gradient, and one with it. Bisection is of
    sign(x) log(1 + |x|), so that large roots are as exact relatively as small ones absolutely.

    The gradient is that of the implicit function, dx = (dz - ∂f/∂θ dθ) / f'(x); it is differentiable once.
    """
    endless = z.isinf()
    target = z.masked_fill(endless, 0.0)
    x = _sought(f, target.detach())
    value, log_slope = f(x)
    newton = (target - value) * (-log_slope.detach()).clamp(max=STEEPEST).exp()
    return torch.where(endless, z, x + (newton - newton.detach()))


class Rooted(Elementwise, ABC):
    """An increasing elementwise map, from the line onto the line, of which only `ahead` is in closed form."""

    def back(self, z: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        x = root(lambda point: self.ahead(point, theta), z)
        return x, -self.ahead(x, theta)[1]


@torch.no_grad()
def _sought(f: Increasing, z: Tensor) -> Tensor:
    how = DOUBLE if z.dtype == torch.float64 else SINGLE
    high = _compressed(torch.full_like(z, how.reach))
    low = -high
    for _ in range(how.halvings):
        middle = (low + high) / 2
        low, high = _narrowed(f(_expanded(middle))[0] < z, middle, low, high)
    x, low, high = _expanded((low + high) / 2), _expanded(low), _expanded(high)
    for _ in range(how.newtons):
        value, log_slope = f(x)
        low, high = _narrowed(value < z, x, low, high)
        tried = x + (z - value) * (-log_slope).exp()
        x = torch.where((low <= tried) & (tried <= high), tried, (low + high) / 2)
    return x


def _narrowed(below: Tensor, x: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    return torch.where(below, x, low), torch.where(below, high, x)


def _compressed(x: Tensor) -> Tensor:
    return x.sign() * x.abs().log1p()


def _expanded(u: Tensor) -> Tensor:
    return u.sign() * u.abs().expm1()

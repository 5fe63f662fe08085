"""Bernstein polynomials of increasing coefficients (Sick, Hothorn & Dürr 2020; Ramasinghe et al. 2021)."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from longflow.bijections.bijection import Example
from longflow.bijections.elementwise import Theta
from longflow.bijections.root import Rooted
from longflow.bijections.slopes import checked, slopes_at
from longflow.errors import UsageError


class Bernstein(Rooted):
    """z = Σ_i c_i C(n, i) uⁱ (1 - u)ⁿ⁻ⁱ, i = 0..n, u = (x + B) / 2B, for x in [-B, B]; straight on outside.

    The context is a shift t, then n numbers s that set how steeply the coefficients rise:

        c_0 = t - B,   c_{i+1} = c_i + (2B/n) (eˢ + m) / (1 + m eˢ)

    Evenly rising coefficients make a straight line, so a zero context is the identity, exactly. The slope is a mean of
    those n slopes, hence in [m, 1/m], m = `slope`, everywhere; outside it is that of the end, and the map is onto the
    line. The inverse is numerical (`root`).
    """

    def __init__(self, degree: int = 8, *, bound: float = 5.0, slope: float = 0.2) -> None:
        super().__init__()
        if degree < 1:
            raise UsageError(f"Bernstein expects degree >= 1; {degree} came")
        self.degree, self.bound, self.slope = degree, *checked(bound, slope)
        self.parameters_per_feature = degree + 1

    def ahead(self, x: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        slopes = slopes_at(theta[1:], self.slope)
        # What z is more than x: in float32 the small sum keeps digits that the large one would lose.
        rises = (2 * self.bound / self.degree) * (slopes - 1).cumsum(0)
        inside = x.clamp(-self.bound, self.bound)
        u = (inside + self.bound) / (2 * self.bound)
        slope = (slopes * basis(u, self.degree - 1)).sum(0)
        more = theta[0] + (rises * basis(u, self.degree)[1:]).sum(0)
        return x + more + (x - inside) * (slope - 1), slope.log()

    def extra_repr(self) -> str:
        return f"degree={self.degree}, bound={self.bound}, slope={self.slope}"

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(), (3,), (3 * 9,))
        yield Example(cls(3, bound=1.0), (2, 2, 2), (2 * 4, 2, 2))


def basis(u: Tensor, degree: int) -> Tensor:
    """Return C(n, i) uⁱ (1 - u)ⁿ⁻ⁱ for i = 0..n and u in [0, 1], of shape (n + 1, *u.shape)."""
    choices = [float(math.comb(degree, i)) for i in range(degree + 1)]
    powers, complements = [torch.ones_like(u)], [torch.ones_like(u)]
    for _ in range(degree):
        powers.append(powers[-1] * u)
        complements.append(complements[-1] * (1 - u))
    terms = zip(choices, powers, reversed(complements), strict=True)
    return torch.stack([choice * (power * complement) for choice, power, complement in terms])

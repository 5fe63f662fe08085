"""The sum-of-squares polynomial: an increasing polynomial of any odd degree."""

from collections.abc import Iterator
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from longflow.bijections.bijection import Example
from longflow.bijections.elementwise import Theta
from longflow.bijections.mixture import along, spread
from longflow.bijections.root import Rooted
from longflow.errors import UsageError

FLATTEST = 1e-2
"""The least slope: with none, p = 0 would be no bijection, and a small one makes inverses that explode."""

TILT = 0.1
"""How far the polynomials lean apart at a context of zeros."""


class SumOfSquares(Rooted):
    """z = c + ∫₀ˣ (ε + Σ_k p_k(t)²) dt, p_k of degree r (SOS flow: Jaini, Selby & Yu 2019, section 3).

    The context is the coefficients of p_1, of p_2, …, from the constant on, r + 1 each, then c. The constants are
    counted from where Σ p_k(0)² = 1 - ε, so that a context of zeros is near the identity, and the linear coefficients
    from small numbers, so that no two polynomials are alike. Two squares make any positive polynomial of degree 2r.

    ε = 0.01 is the least slope, by which the map is onto. The integral is exact: a Gauss-Legendre rule of r + 1 nodes,
    of positive terms only. z is a polynomial of degree 2r + 1: float32 overflows where x is so large, from 10⁷ on for
    r = 2, 2·10⁴ for r = 4. A stack of n has degree (2r + 1)ⁿ and soon does so in float64, too; where it does, its
    log-density is no number. The inverse is numerical (`root`).
    """

    tilts: Tensor

    def __init__(self, polynomials: int = 2, *, degree: int = 2) -> None:
        super().__init__()
        if polynomials < 1 or degree < 1:
            raise UsageError(f"SumOfSquares expects polynomials >= 1 and degree >= 1; {polynomials}, {degree} came")
        self.polynomials, self.degree = polynomials, degree
        self.parameters_per_feature = polynomials * (degree + 1) + 1
        nodes, weights = np.polynomial.legendre.leggauss(degree + 1)
        # Numbers of Python: as buffers they would be rounded with the model, and the slope no longer be the derivative.
        self.rule = [
            ((1 + node) / 2, weight / 2) for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True)
        ]
        self.register_buffer("tilts", torch.tensor(spread(polynomials, TILT)), persistent=False)
        self.constant = ((1 - FLATTEST) / polynomials) ** 0.5

    def extra_repr(self) -> str:
        return f"polynomials={self.polynomials}, degree={self.degree}"

    def ahead(self, x: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        coefficients = self._coefficients(theta)
        mean = reduce(torch.add, (weight * self._slope(node * x, coefficients) for node, weight in self.rule))
        return theta[-1] + x * mean, self._slope(x, coefficients).log()

    def _coefficients(self, theta: Theta) -> list[Tensor]:
        """Return the coefficients of the polynomials, (K, B, D, ...), from the constant on."""
        constant, linear, *higher = theta[:-1].unflatten(0, (self.polynomials, -1)).unbind(1)
        return [constant + self.constant, linear + along(self.tilts, linear), *higher]

    def _slope(self, x: Tensor, coefficients: list[Tensor]) -> Tensor:
        """Return ε + Σ p_k(x)²."""
        values = reduce(lambda value, coefficient: value * x + coefficient, reversed(coefficients))
        return FLATTEST + values.square().sum(0)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(), (3,), (3 * 7,))
        yield Example(cls(3, degree=3), (1, 2, 2), (13, 2, 2))

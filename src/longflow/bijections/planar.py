"""Maps that add a function of few directions: planar, radial and Sylvester flows, invertible both ways."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longflow.bijections.bijection import Bijection, Example
from longflow.errors import UsageError

HALVINGS = {torch.float64: 60, torch.float32: 30}
NEWTON_STEPS = 3
LARGEST_DIAGONAL = 0.999


class Planar(Bijection):
    """z = x + u tanh(wᵀx + b), for vectors (Rezende & Mohamed 2015, section 4.1).

    wᵀu ≥ -1 is enforced along w (their appendix A.1), so that it is one to one. log|det| = log(1 + wᵀu (1 - tanh²)).
    The inverse is the root of one increasing function of wᵀx, by bisection to the rounding of its type.
    """

    exact = False

    def __init__(self, features: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(features) / math.sqrt(features))
        self.raw_u = nn.Parameter(0.01 * torch.randn(features))
        self.b = nn.Parameter(torch.zeros(()))

    def u(self) -> tuple[Tensor, Tensor]:
        """Return u, (D,), moved along w to where wᵀu > -1, and 1 + wᵀu, which rounding cannot make negative."""
        along = self.w @ self.raw_u
        margin = F.softplus(along)
        return self.raw_u + (margin - 1 - along) * self.w / self.w.square().sum(), margin

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        (u, margin), h = self.u(), torch.tanh(x @ self.w + self.b)
        return x + u * h[:, None], _log_slope(margin, h)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u, margin = self.u()
        h = torch.tanh(root_of(z @ self.w, margin - 1, torch.ones_like(self.b), self.b) + self.b)
        return z - u * h[:, None], -_log_slope(margin, h)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(3), (3,))


class Radial(Bijection):
    """z = x + β (x - x₀) / (α + r) with r = ‖x - x₀‖, for vectors (Rezende & Mohamed 2015, eq. 14).

    α > 0 and β > -α make it one to one. The inverse is that of a quadratic in r, in closed form.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.randn(features))
        self.log_alpha = nn.Parameter(torch.zeros(()))
        self.raw_beta = nn.Parameter(torch.tensor(math.log(math.e - 1)))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        alpha, beta = self._alpha_beta()
        away = x - self.centre
        r = torch.linalg.vector_norm(away, dim=1)
        return x + away * (beta / (alpha + r))[:, None], self._log_det(r, x.shape[1])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        alpha, beta = self._alpha_beta()
        away = z - self.centre
        s = torch.linalg.vector_norm(away, dim=1)
        half = (s - alpha - beta) / 2
        r = half + torch.sqrt(half.square() + alpha * s)
        return self.centre + away * ((alpha + r) / (alpha + beta + r))[:, None], -self._log_det(r, z.shape[1])

    def _alpha_beta(self) -> tuple[Tensor, Tensor]:
        alpha = self.log_alpha.exp()
        return alpha, F.softplus(self.raw_beta) - alpha

    def _log_det(self, r: Tensor, features: int) -> Tensor:
        alpha, beta = self._alpha_beta()
        around = torch.log((alpha + beta + r) / (alpha + r))
        along = torch.log((r.square() + 2 * alpha * r + alpha * (alpha + beta)) / (alpha + r).square())
        return (features - 1) * around + along

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(3), (3,))
        yield Example(cls(1), (1,))


class Sylvester(Bijection):
    """z = x + Q R tanh(R̃ Qᵀx + b), for vectors, with Q of M orthonormal columns, R and R̃ upper triangular.

    (van den Berg, Hasenclever, Tomczak & Welling 2018, eq. 13.) Diagonals within ±0.999 make it one to one;
    log|det| = Σ_i log(1 + R_ii R̃_ii (1 - tanh²_i)). The inverse solves M increasing functions of one number, the last
    first, by bisection. Q is the orthogonal factor of a free matrix.
    """

    exact = False

    def __init__(self, features: int, directions: int) -> None:
        super().__init__()
        if not 1 <= directions <= features:
            raise UsageError(f"Sylvester expects 1 to {features} directions, its features; {directions} came")
        self.free = nn.Parameter(torch.randn(features, directions))
        self.upper = nn.Parameter(0.1 * torch.randn(2, directions, directions))
        self.b = nn.Parameter(torch.zeros(directions))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        q, (r, inner) = self._q(), self._triangles()
        h = torch.tanh(x @ q @ inner.T + self.b)
        return x + h @ r.T @ q.T, self._log_det(r, inner, h)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        q, (r, inner) = self._q(), self._triangles()
        t = z @ q
        ys: list[Tensor] = []
        hs: list[Tensor] = []
        for i in reversed(range(len(self.b))):
            later = list(range(i + 1, len(self.b)))
            shift, rest = self.b[i].expand(len(z)), t[:, i]
            for j, y, h in zip(later, reversed(ys), reversed(hs), strict=True):
                shift, rest = shift + inner[i, j] * y, rest - r[i, j] * h
            ys.append(root_of(rest, r[i, i], inner[i, i], shift))
            hs.append(torch.tanh(inner[i, i] * ys[-1] + shift))
        h = torch.stack(hs[::-1], 1)
        return z - h @ r.T @ q.T, -self._log_det(r, inner, h)

    def _q(self) -> Tensor:
        return torch.linalg.qr(self.free)[0]

    def _triangles(self) -> tuple[Tensor, Tensor]:
        diagonal = torch.diag_embed(LARGEST_DIAGONAL * torch.tanh(self.upper.diagonal(dim1=1, dim2=2)))
        r, inner = torch.triu(self.upper, 1) + diagonal
        return r, inner

    def _log_det(self, r: Tensor, inner: Tensor, h: Tensor) -> Tensor:
        return torch.log1p(r.diagonal() * inner.diagonal() * (1 - h.square())).sum(1)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(4, 2), (4,))
        yield Example(cls(3, 3), (3,))


def _log_slope(margin: Tensor, h: Tensor) -> Tensor:
    """Return log(1 + (margin - 1)(1 - h²)), as a sum of what cannot be negative."""
    return torch.log(h.square() + margin * (1 - h.square()))


def root_of(t: Tensor, height: Tensor, slope: Tensor, shift: Tensor) -> Tensor:
    """Return y with y + height · tanh(slope · y + shift) = t, (B,), where height · slope > -1; differentiable.

    The root is within |height| of t. A bisection of fixed length finds it, Newton's steps polish it, and one more
    carries the gradient, of which there is one.
    """
    at, high, steep, moved = (a.detach() for a in (t, height, slope, shift))

    def excess(y: Tensor) -> Tensor:
        return y + high * torch.tanh(steep * y + moved) - at

    low, up = at - high.abs(), at + high.abs()
    for _ in range(HALVINGS.get(t.dtype, 30)):
        middle = (low + up) / 2
        above = excess(middle) > 0
        low, up = torch.where(above, low, middle), torch.where(above, middle, up)
    y = (low + up) / 2
    for _ in range(NEWTON_STEPS):
        step = excess(y) / (1 + high * steep * (1 - torch.tanh(steep * y + moved).square()))
        y = torch.clamp(y - step, low, up)
    bend = 1 + high * steep * (1 - torch.tanh(steep * y + moved).square())
    return y - (y + height * torch.tanh(slope * y + shift) - t) / bend

"""Layers of bounded slope: linear maps of spectral norm at most c, and activations of slope at most 1."""

import copy
import math
from abc import abstractmethod
from collections.abc import Callable
from math import prod
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longflow.constraints import MOST_ITERATIONS, TOLERANCE, Constrained
from longflow.errors import UsageError, choose

SWISH_SLOPE = 1.1
"""More than the largest slope of swish, 1.0998, whatever β: the slope depends on βx alone."""

TIGHT, MANY, MARGIN = 1e-7, 2000, 1e-4
"""Relative change and number of iterations at which the norm of a kept layer is taken, and what is added to it."""

MOST_ROWS = 1024
"""Inputs or outputs of a convolution up to which its norm is computed, not bounded."""

CLIPSWISH_NORM = 1.004
"""More than the largest √(f′(x)² + f′(-x)²) of f = LipSwish, 1.0039 (Perugachi-Diaz et al. 2021, section 3.3)."""


Pull = Callable[[Tensor], tuple[Tensor]]


class LipSwish(nn.Module):
    """x σ(βx) / 1.1 with β = softplus(b) learned, b = 0.5 at first (Chen et al. 2019, section 3.3): |slope| < 1."""

    widens = 1

    def __init__(self) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Return values of the shape of x."""
        beta = F.softplus(self.b)
        return F.silu(x * beta) * (1 / (SWISH_SLOPE * beta))


class CLipSwish(LipSwish):
    """LipSwish of x beside LipSwish of -x, over 1.004, twice as many features (Perugachi-Diaz et al. 2021).

    As a map of one number to two its slope is at most 1, and at least 0.64: gradients do not fade.
    """

    widens = 2

    def forward(self, x: Tensor) -> Tensor:
        """Return values of twice as many features, axis 1."""
        return torch.cat((super().forward(x), super().forward(-x)), 1) / CLIPSWISH_NORM


class ELU(nn.ELU):
    """x for x > 0, else exp(x) - 1: its slope is at most 1 and continuous (Clevert et al. 2016)."""

    widens = 1


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"lipswish": LipSwish, "elu": ELU, "clipswish": CLipSwish}


def activation_of(name: str) -> Callable[[], nn.Module]:
    """Return the class of an activation of slope at most 1; raise UsageError for another, with the reason."""
    if name in ("swish", "silu"):
        raise UsageError(
            f"the slope of {name} reaches 1.0998: it is no contraction; use 'lipswish', which divides by 1.1"
        )
    if name == "relu":
        raise UsageError("the slope of relu jumps, so that log-determinants have no gradient; use 'lipswish' or 'elu'")
    return ACTIVATIONS[choose("activation", name, ACTIVATIONS)]


def check_coefficient(coefficient: float) -> None:
    """Raise UsageError unless 0 < coefficient < 1, as a contraction needs."""
    if not 0 < coefficient < 1:
        raise UsageError(
            f"an invertible residual block expects 0 < coefficient < 1, the largest norm of a layer; {coefficient} came"
        )


class LipschitzLayer(Constrained):
    """A linear operator W with a bias, of spectral norm ‖W‖ ≤ coefficient.

    After a step of the optimiser, `constrain` estimates ‖W‖ by power iteration on the very operator that `forward`
    applies, and shrinks W where it is too large (Gouk et al. 2021): never within `forward`. The iteration starts from
    the output vector where it ended last, a buffer. With relative tolerance t it shrinks to coefficient / (1 + t); as
    power iteration comes from below, `norm_bound` is the certificate.
    """

    vector: Tensor

    def __init__(self, weight: Tensor, coefficient: float, outputs: tuple[int, ...]) -> None:
        super().__init__()
        self.coefficient = coefficient
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(weight.shape[0]))
        self.register_buffer("vector", torch.zeros(1, *outputs))
        if weight.is_meta:  # numbers that are not there have no norm: shapes alone are asked for
            return
        self.vector.copy_(self._start())
        with torch.no_grad():
            self.weight.mul_(min(1.0, coefficient / self.torus_bound()))

    @abstractmethod
    def operator(self, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return W v, of shape (B, *outputs), for v of shape (B, *inputs), plus a bias for each feature."""

    def adjoint(self) -> Pull:
        """Return the map u ↦ (Wᵀ u,) for u of shape (1, *outputs), derived from `operator`."""
        nothing = self.vector.new_zeros(1, *self.inputs())
        return cast("tuple[Tensor, Pull]", torch.func.vjp(self.operator, nothing))[1]

    @abstractmethod
    def inputs(self) -> tuple[int, ...]:
        """Return the shape of one input."""

    @abstractmethod
    def torus_bound(self) -> float:
        """Return a number that ‖W‖ cannot exceed, up to rounding in float64, and is next to it."""

    @abstractmethod
    def norm_bound(self) -> tuple[float, bool]:
        """Return the least bound on ‖W‖ that can be had, and whether it is ‖W‖ itself."""

    @torch.no_grad()
    def constrain(self, tolerance: float = TOLERANCE, most: int = MOST_ITERATIONS) -> None:
        norm = self.iterate(tolerance, most)
        self.weight.mul_(min(1.0, self.coefficient / (norm * (1 + tolerance))) if norm > 0 else 1.0)

    @torch.no_grad()
    def tighten(self) -> None:
        """Shrink W where it is too large, by ‖W‖ itself where that is cheap, else by an iteration from a new start."""
        self.vector.copy_(self._start())
        norm, exact = self.norm_bound() if self.weight.dim() == 2 else (0.0, False)
        norm = norm if exact else self.iterate(TIGHT, MANY) * (1 + MARGIN)
        self.weight.mul_(min(1.0, self.coefficient / norm) if norm > 0 else 1.0)

    def _start(self) -> Tensor:
        """Return a random direction, always the same, to iterate from."""
        drawn = torch.randn(self.vector.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return _unit(drawn).to(self.vector)

    @torch.no_grad()
    def iterate(self, tolerance: float = TOLERANCE, most: int = MOST_ITERATIONS) -> float:
        """Return an estimate of ‖W‖ by power iteration, until it changes by less than a share `tolerance`."""
        adjoint = self.adjoint()
        before, norm = 0.0, float("inf")
        for _ in range(most):
            out = self.operator(_unit(adjoint(self.vector)[0]))
            norm = float(torch.linalg.vector_norm(out))
            if not 0 < norm < math.inf:  # such a vector would stay so for ever
                self.vector.copy_(self._start())
                break
            self.vector.copy_(_unit(out))
            if abs(norm - before) <= tolerance * norm:
                break
            before = norm
        return norm

    def forward(self, x: Tensor) -> Tensor:
        """Return W x + bias."""
        return self.operator(x, self.bias)


class LipschitzLinear(LipschitzLayer):
    """A fully connected layer, (B, features_in) to (B, features_out)."""

    def __init__(self, features_in: int, features_out: int, coefficient: float) -> None:
        super().__init__(_init((features_out, features_in), features_in), coefficient, (features_out,))

    def operator(self, v: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(v, self.weight, bias)

    def adjoint(self) -> Pull:
        return lambda u: (u @ self.weight,)

    def inputs(self) -> tuple[int, ...]:
        return (self.weight.shape[1],)

    def torus_bound(self) -> float:
        return _norm(self.weight.detach().double())

    def norm_bound(self) -> tuple[float, bool]:
        return self.torus_bound(), True


class LipschitzConv(LipschitzLayer):
    """A convolution of stride 1 that keeps the size of maps, zero beyond the border or periodic.

    Its norm depends on the size of the maps, `space`, on which alone it is bounded.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        side: int,
        coefficient: float,
        *,
        space: tuple[int, ...],
        periodic: bool = False,
    ) -> None:
        if side % 2 == 0:
            raise UsageError(f"a convolution that keeps the size expects an odd side; {side} came")
        self.space, self.periodic = tuple(space), periodic
        weight = _init((channels_out, channels_in, side, side), channels_in * side**2)
        super().__init__(weight, coefficient, (channels_out, *self._probed(side)))

    def operator(self, v: Tensor, bias: Tensor | None = None) -> Tensor:
        margin = self.weight.shape[2] // 2
        if margin and self.periodic:
            return F.conv2d(F.pad(v, (margin,) * 4, mode="circular"), self.weight, bias)
        return F.conv2d(v, self.weight, bias, padding=margin)

    def inputs(self) -> tuple[int, ...]:
        return self.weight.shape[1], *self._probed(self.weight.shape[2])

    def norm_bound(self) -> tuple[float, bool]:
        """Return ‖W‖, by the torus, or by W Wᵀ (or Wᵀ W) where that has at most 1,024 rows; else the torus's bound."""
        side = self.weight.shape[2]
        if self.periodic or side == 1:
            return self.torus_bound(), True
        wide = copy.deepcopy(self).double()
        few = min(self.inputs(), tuple(self.vector.shape[1:]), key=prod)
        if prod(few) > MOST_ROWS:
            return self.torus_bound(), False
        zero = torch.zeros(1, *self.inputs(), dtype=torch.float64, device=self.weight.device)
        basis = torch.eye(prod(few), dtype=torch.float64, device=zero.device).reshape(-1, *few)
        if few == self.inputs():
            columns = torch.cat([wide.operator(part).flatten(1) for part in basis.split(64)])
        else:
            pull = cast("tuple[Tensor, Pull]", torch.func.vjp(wide.operator, zero.expand(64, *self.inputs())))[1]
            padded = torch.cat((basis, basis.new_zeros(-len(basis) % 64, *few))).split(64)
            columns = torch.cat([pull(part)[0].flatten(1) for part in padded])
        return _norm(columns.detach()), True

    def torus_bound(self) -> float:
        """Return the largest singular value over the frequencies of a torus (Sedghi, Gupta & Long 2019).

        For periodic borders that is the norm. A zero-padded convolution is the periodic one of a torus that is wider by
        2·⌊side/2⌋, between two projections: an upper bound.
        """
        side = self.weight.shape[2]
        grow = 0 if self.periodic else 2 * (side // 2)
        height, width = (n + grow for n in self._probed(side))
        kernel = self.weight.detach().double()
        periods = torch.zeros(*kernel.shape[:2], height, width, dtype=kernel.dtype, device=kernel.device)
        for i in range(side):
            for j in range(side):
                periods[:, :, i % height, j % width] += kernel[:, :, i, j]
        transfer = torch.fft.rfft2(periods).permute(2, 3, 0, 1)
        return _norm(transfer)

    def _probed(self, side: int) -> tuple[int, ...]:
        """Return the space on which the norm is that of the whole: a 1×1 convolution is the same matrix everywhere."""
        return (1, 1) if side == 1 else self.space


def _init(shape: tuple[int, ...], fan_in: int) -> Tensor:
    bound = fan_in**-0.5
    return torch.empty(shape).uniform_(-bound, bound)


def _norm(matrices: Tensor) -> float:
    """Return the largest spectral norm of matrices (..., M, N), by the smaller of their Gram matrices."""
    a = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mT
    return float(torch.linalg.eigvalsh(a @ a.mH)[..., -1].max().clamp_min(0).sqrt())


def _unit(v: Tensor) -> Tensor:
    return v / torch.linalg.vector_norm(v).clamp_min(torch.finfo(v.dtype).tiny)

"""Monotone rational-quadratic splines (Durkan, Bekasov, Murray & Papamakarios, NeurIPS 2019)."""

import inspect
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from longflow.bijections.bijection import Example
from longflow.bijections.elementwise import Elementwise, Theta
from longflow.bijections.knots import Grid, bins_at, gradient
from longflow.bijections.slopes import MOST, slopes_at
from longflow.bijections.tails import TAILS
from longflow.errors import choose


class RationalQuadratic(Elementwise):
    """z = g(x), in each of `bins` bins a quotient of quadratics (Durkan et al. 2019, eq. 4 to 8), on [-B, B].

    With ξ = (x - left) / w, s = h / w and slopes a, b at the ends of a bin:

        z = bottom + h ξ (a + (s - a) ξ) / (s + (a + b - 2s) ξ (1 - ξ))

    The context is, along its parameters: K logits of widths, K of heights (softmax), then those of the slopes at the
    knots, K - 1 of them with `tails` "linear" (the identity outside [-B, B]), K with "circular" (x is an angle of
    period 2B in [-B, B), whose ends meet with equal slopes; compose it with `CircularShift`, as it leaves them where
    they are), K + 1 with "bounded" ([-B, B] onto itself). A zero context is the identity to rounding.

    `slope` m keeps mean slopes of bins (`Grid`) and slopes at knots, (eᵗ + m) / (1 + m eᵗ), in [m, 1/m]; within a bin
    the slope is then at least m³, and at most 2/m: the inverse magnifies rounding up to 1/m³ times. A small m can tell
    modes apart; with 1/3, a float32 round trip is right to 1e-5 whatever the parameters are. No bin is narrower than
    2B · `floor`.
    """

    def __init__(
        self,
        bins: int = 8,
        *,
        bound: float = 5.0,
        tails: Literal["linear", "circular", "bounded"] = "linear",
        slope: float = 0.01,
        floor: float = 1e-3,
    ) -> None:
        super().__init__()
        self.grid = Grid(bins, bound, slope, floor)
        self.tails = TAILS[choose("tails", tails, TAILS)]
        self.parameters_per_feature = 2 * bins + self.tails.free(bins)

    def ahead(self, x: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        x = x.contiguous()
        inside = self.tails.enter(x, self.grid.bound)
        shares, slopes = self._parts(theta)
        if torch.compiler.is_compiling():
            y, log_slope = curve(inside, bins_at(inside, shares, slopes, 0, self.grid)[0], self.grid.slope)
        else:
            y, log_slope, _, _ = _Ahead.apply(inside, shares, slopes, self.grid)
        return self.tails.leave(x, inside, y, log_slope)

    def back(self, z: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        z = z.contiguous()
        inside = self.tails.enter(z, self.grid.bound)
        shares, slopes = self._parts(theta)
        y, log_slope = curve_back(inside, bins_at(inside, shares, slopes, 1, self.grid)[0], self.grid.slope)
        return self.tails.leave(z, inside, y, log_slope)

    def standardising(self, mean: Tensor, std: Tensor) -> tuple[Tensor, ...]:
        """Return the identity: within its fixed interval a spline cannot follow the units of data."""
        return (torch.zeros_like(mean),) * self.parameters_per_feature

    def _parts(self, theta: Theta) -> tuple[Tensor, Tensor]:
        """Return the shares of the bins, (2, K, B, D, ...), and the parameters of the slopes, (K + 1, B, D, ...)."""
        bins = self.grid.bins
        sizes, free = theta.split((2 * bins, len(theta) - 2 * bins))
        return sizes.unflatten(0, (2, bins)).softmax(1), self.tails.slopes(free)

    def extra_repr(self) -> str:
        return f"{self.grid}, tails={self.tails.__name__}"

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(), (3,), (3 * 23,))
        yield Example(cls(3, bound=1.0, slope=0.1), (2, 2, 3), (2 * 8, 2, 3))
        yield Example(cls(4, bound=2.0, tails="circular"), (2,), (2 * 12,), domain=(-2, 2))
        yield Example(cls(4, bound=1.0, tails="bounded"), (2,), (2 * 13,), domain=(-1, 1))


def curve(x: Tensor, bins: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Return z and log dz/dx at x in the bins that `bins_at` found; slopes are at least `least`."""
    left, bottom, w, h = bins[:4].unbind()
    a, b = slopes_at(bins[4:], least).unbind()
    t, s = (x - left) / w, h / w
    bend = a + b - 2 * s
    below = s + bend * t * (1 - t)
    value = t * (a + (s - a) * t) / below
    return torch.addcmul(bottom, h, value), _log_slope(t, s, a, bend, below)


def curve_back(z: Tensor, bins: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Return x and log dx/dz at z: the root in [0, 1] of the quadratic, in the form that does not cancel (eq. 29)."""
    left, bottom, w, h = bins[:4].unbind()
    a, b = slopes_at(bins[4:], least).unbind()
    s = h / w
    rise, bend = (z - bottom) / h, a + b - 2 * s
    half = a - rise * bend
    discriminant = (half * half + 4 * s * rise * (s - half)).clamp(min=torch.finfo(z.dtype).tiny)
    t = (2 * s * rise / (half + discriminant.sqrt())).clamp(0, 1)
    return torch.addcmul(left, w, t), -_log_slope(t, s, a, bend, s + bend * t * (1 - t))


def _log_slope(t: Tensor, s: Tensor, a: Tensor, bend: Tensor, below: Tensor) -> Tensor:
    """Return log dz/dx at the share t of a bin's width, with bend = a + b - 2s and the denominator `below`."""
    ratio = s / below
    return ((a + t * (2 * (s - a) + bend * t)) * ratio * ratio).log()


class _Ahead(torch.autograd.Function):
    """`curve` at x in its bins, with its gradient in closed form; the bins and their numbers are told for that."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, shares: Tensor, slopes: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        bins, index = bins_at(x, shares, slopes, 0, grid)
        return *curve(x, bins, grid.slope), bins, index

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, shares, slopes, ctx.grid = inputs
        ctx.shapes = shares.shape, slopes.shape
        ctx.mark_non_differentiable(output[3])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *output[2:])

    @staticmethod
    def backward(ctx: Any, to_z: Tensor | None, to_log_slope: Tensor | None, to_bins: Tensor | None, _: None) -> Any:
        x, bins, index = ctx.saved_tensors
        # A slice or an expanded tensor would slow each product with it.
        to_z = torch.zeros_like(x) if to_z is None else to_z.contiguous()
        to_log_slope = torch.zeros_like(x) if to_log_slope is None else to_log_slope.contiguous()
        to_x, own = _curve_gradient(x, bins, to_z, to_log_slope, ctx.grid.slope)
        to_shares, to_slopes = gradient(own if to_bins is None else own + to_bins, index, ctx.grid)
        return to_x, to_shares.sum_to_size(ctx.shapes[0]), to_slopes.sum_to_size(ctx.shapes[1]), None


# torch would find it anew at every call, in a tenth of the time of a density.
_Ahead.forward.__signature__ = inspect.signature(_Ahead.forward)  # type: ignore[attr-defined]


def _curve_gradient(x: Tensor, bins: Tensor, to_z: Tensor, to_log_slope: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Return the gradients of `curve` to x and to its bins, (6, B, D, ...)."""
    left, _, w, h, *_ = bins.unbind()
    e = bins[4:].clamp(-MOST, MOST).exp()
    over = (1 + least * e).reciprocal()
    a, b = ((e + least) * over).unbind()
    per_w = w.reciprocal()
    t, s = (x - left) * per_w, h * per_w
    u = 1 - t
    v, bend, rise, square = t * u, a + b - 2 * s, s - a, t * t
    per_below = (s + bend * v).reciprocal()
    share = t * (a + rise * t) * per_below
    # d loss = g_n dN + g_d dD + g_g dG of z = bottom + h N/D, log-slope = log G + 2 log s - 2 log D
    g_n = to_z * h * per_below
    g_d = -(g_n * share + 2 * to_log_slope * per_below)
    g_g = to_log_slope / (a + t * (2 * rise + bend * t))
    both = g_d * v
    to_a = g_n * v + both + g_g * u * u
    to_b = both + g_g * square
    to_s = g_n * square + g_d * (1 - 2 * v) + 2 * (g_g * v + to_log_slope / s)
    to_x = (g_n * (a + 2 * rise * t) + g_d * bend * (u - t) + 2 * g_g * (rise + bend * t)) * per_w
    lift = to_s * per_w
    to_slopes = torch.stack((to_a, to_b)) * (e * (1 - least**2) * over * over)
    to_sizes = torch.stack((-to_x, to_z, -(to_x * t + lift * s), to_z * share + lift))
    return to_x, torch.cat((to_sizes, to_slopes))

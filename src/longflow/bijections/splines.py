"""Splines whose slope is constant or linear in each bin (Müller, McWilliams, Rousselle, Gross & Novák 2019, §4)."""

from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from longflow.bijections.bijection import Example
from longflow.bijections.elementwise import Elementwise, Theta
from longflow.bijections.knots import at_ends, located
from longflow.bijections.slopes import checked
from longflow.bijections.tails import Linear
from longflow.errors import UsageError


class Spline(Elementwise):
    """z = m·x + (1 - m)·g(x) on [-B, B], g a spline of K bins with g(±B) = ±B; the identity outside.

    So the slope is at least m, which bounds how much the inverse magnifies rounding, to 1/m times.
    """

    def __init__(self, bins: int, bound: float, slope: float) -> None:
        super().__init__()
        if bins < 2:
            raise UsageError(f"{type(self).__name__} expects at least 2 bins; {bins} came")
        self.bins, self.bound, self.slope = bins, *checked(bound, slope)

    @abstractmethod
    def table(self, theta: Theta, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Return widths and heights, (2, K, *shape), and the slopes at all knots, (K + 1, *shape)."""

    @abstractmethod
    def rise(self, t: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Return (z - bottom) / w and the slope at the share t of a bin's width, of slopes a and b at its ends."""

    @abstractmethod
    def share(self, rise: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Return t of that rise."""

    def ahead(self, x: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        inside, corner, size, ends = self._bin(x, theta, 0)
        rise, slope = self.rise((inside - corner[0]) / size[0], ends[0], ends[1])
        return Linear.leave(x, inside, torch.addcmul(corner[1], size[0], rise), slope.log())

    def back(self, z: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        inside, corner, size, ends = self._bin(z, theta, 1)
        t = self.share((inside - corner[1]) / size[0], ends[0], ends[1])
        slope = self.rise(t, ends[0], ends[1])[1]
        return Linear.leave(z, inside, torch.addcmul(corner[0], size[0], t), -slope.log())

    def _bin(self, point: Tensor, theta: Theta, axis: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        inside = Linear.enter(point, self.bound)
        sizes, slopes = self.table(theta, point.shape)
        corner, size, index = located(inside, sizes, axis, self.bound)
        return inside, corner, size, at_ends(slopes, index)

    def _least(self, slopes: Tensor) -> Tensor:
        return self.slope + (1 - self.slope) * slopes

    def extra_repr(self) -> str:
        return f"bins={self.bins}, bound={self.bound}, slope={self.slope}"

    @classmethod
    def examples(cls) -> Iterator[Example]:
        build: type = cls
        for spline, shape in ((build(), (3,)), (build(3, bound=1.0), (2, 2, 3))):
            yield Example(spline, shape, (shape[0] * spline.parameters_per_feature, *shape[1:]))


class LinearSpline(Spline):
    """Bins of equal widths and of slopes K·softmax(θ) (§4.1). The context is K logits; at 0 it is the identity.

    The log-slope jumps at the knots.
    """

    def __init__(self, bins: int = 8, *, bound: float = 5.0, slope: float = 0.2) -> None:
        super().__init__(bins, bound, slope)
        self.parameters_per_feature = bins

    def table(self, theta: Theta, shape: torch.Size) -> tuple[Tensor, Tensor]:
        slopes = self._least(self.bins * theta.softmax(0)).expand(self.bins, *shape)
        width = 2 * self.bound / self.bins
        sizes = torch.stack((torch.full_like(slopes, width), width * slopes))
        return sizes, torch.cat((slopes, slopes[-1:]))

    def rise(self, t: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return a * t, a

    def share(self, rise: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return rise / a


class QuadraticSpline(Spline):
    """Slopes linear in each bin (§4.2, eq. 11 to 14), continuous at knots and 1 at the ends.

    The context is K logits of widths (softmax), then the K - 1 logarithms of the slopes at the inner knots, up to a
    factor by which the slope at both ends is 1 and the map is onto [-B, B]. No bin is narrower than 2B · `floor`.
    At 0 it is the identity to rounding.
    """

    def __init__(self, bins: int = 8, *, bound: float = 5.0, slope: float = 0.2, floor: float = 1e-3) -> None:
        super().__init__(bins, bound, slope)
        if not 0 <= floor * bins < 1:
            raise UsageError(f"a spline of {bins} bins expects 0 <= floor < 1/{bins}; {floor} came")
        self.floor = floor
        self.parameters_per_feature = 2 * bins - 1

    def table(self, theta: Theta, shape: torch.Size) -> tuple[Tensor, Tensor]:
        logits, logs = theta.split((self.bins, self.bins - 1))
        widths = self.floor + (1 - self.bins * self.floor) * logits.softmax(0)
        inner = (logs - logs.amax(0, keepdim=True)).exp()
        # Σ w (v + v') / 2 = end, of slopes `end` at both ends: that of the end over itself is then 1, and the area, too
        middle = (widths[:-1] + widths[1:]) * inner / 2
        end = middle.sum(0, keepdim=True) / (1 - (widths[:1] + widths[-1:]) / 2)
        inner = self._least(inner / end)
        one = torch.ones_like(inner[:1])
        slopes = torch.cat((one, inner, one))
        widths = 2 * self.bound * widths
        sizes = torch.stack((widths, widths * (slopes[:-1] + slopes[1:]) / 2))
        return sizes.expand(2, self.bins, *shape), slopes.expand(self.bins + 1, *shape)

    def rise(self, t: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        bend = (b - a) * t
        return t * (a + bend / 2), a + bend

    def share(self, rise: Tensor, a: Tensor, b: Tensor) -> Tensor:
        square = (a * a + 2 * (b - a) * rise).clamp(min=torch.finfo(rise.dtype).tiny)
        return (2 * rise / (a + square.sqrt())).clamp(0, 1)

"""Where the bins of a spline lie, and in which of them a point is. Static shapes: comparisons, sums and gathers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from longflow.bijections.slopes import checked
from longflow.errors import UsageError


@dataclass(frozen=True)
class Grid:
    """K bins of [-B, B] along x and along z, made of shares p and q that sum to 1 each.

    With m = `slope`, a bin has the sizes

        w = 2B ((1 - K·floor) (p + m·q) / (1 + m) + floor),   h = 2B ((1 - K·floor) (q + m·p) / (1 + m) + floor)

    so that its mean slope h/w lies in [m, 1/m], whatever the shares, and no bin is narrower than 2B · floor.
    """

    bins: int
    bound: float
    slope: float
    floor: float

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise UsageError(f"a spline expects at least 1 bin; {self.bins} came")
        checked(self.bound, self.slope)
        if not 0 <= self.floor * self.bins < 1:
            raise UsageError(f"a spline of {self.bins} bins expects 0 <= floor < 1/{self.bins}; {self.floor} came")

    @property
    def scale(self) -> float:
        """2B (1 - K·floor) / (1 + m)."""
        return 2 * self.bound * (1 - self.bins * self.floor) / (1 + self.slope)

    def mixed(self, shares: Tensor) -> Tensor:
        """Return (p + m·q, q + m·p) of (p, q) along axis 0: a linear map, its own transpose."""
        return torch.add(shares, shares.flip(0), alpha=self.slope)


def located(point: Tensor, sizes: Tensor, axis: int, bound: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the corner (left, bottom) of each point's bin, its size (width, height), and its number.

    `sizes`, (2, K, B, D, ...), are those of all bins along both axes, from -B on; B and space may be ones. The
    corner and the size are (2, B, D, ...), the number is (1, B, D, ...).
    """
    ends = sizes.cumsum(1)
    index = (point + bound >= ends[axis, :-1]).sum(0, keepdim=True)
    pair, all_bins = index.expand(2, 1, *point.shape), (2, sizes.shape[1], *point.shape)
    end, size = (wide.expand(all_bins).gather(1, pair)[:, 0] for wide in (ends, sizes))
    return end - size - bound, size, index


def at_ends(values: Tensor, index: Tensor) -> Tensor:
    """Return the values, (K + 1, B, D, ...), at both ends of the bins of those numbers: (2, B, D, ...)."""
    return values.expand(len(values), *index.shape[1:]).gather(0, torch.cat((index, index + 1)))


def bins_at(point: Tensor, shares: Tensor, slopes: Tensor, axis: int, grid: Grid) -> tuple[Tensor, Tensor]:
    """Return the bin of each point, as left, bottom, width, height and the parameters of the slopes at both ends.

    `point`, (B, D, ...), in [-B, B], is an x (axis 0) or a z (axis 1); `shares`, (2, K, B, D, ...), are p and q, and
    `slopes` is (K + 1, B, D, ...); both may have ones for B and space. The bins are (6, B, D, ...), their numbers,
    which come second, (1, B, D, ...). Each bin has its left end, not its right one.
    """
    sizes = grid.mixed(shares) * grid.scale + 2 * grid.bound * grid.floor
    corner, size, index = located(point, sizes, axis, grid.bound)
    return torch.cat((corner, size, at_ends(slopes, index))), index


def gradient(grad: Tensor, index: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Return the gradients to shares, (2, K, B, D, ...), and slopes, (K + 1, B, D, ...), of that to the bins.

    Both are filled in one pass: in its bin a point depends on them by a linear map.
    """
    low, size = grid.mixed((grad[:4] * grid.scale).unflatten(0, (2, 2)).transpose(0, 1)).unbind(1)
    steps = torch.arange(grid.bins, device=index.device).reshape(-1, *[1] * (index.dim() - 1))
    shares = (low[:, None] * (steps < index)).scatter_add_(1, index.expand(2, *index.shape), size[:, None])
    slopes = grad.new_zeros(grid.bins + 1, *index.shape[1:]).scatter_add_(0, torch.cat((index, index + 1)), grad[4:])
    return shares, slopes

"""Features whose values lie on a half line or in an interval, brought to the whole line."""

from collections.abc import Iterator, Sequence
from math import inf

import torch
import torch.nn.functional as F
from torch import Tensor

from longflow.bijections.bijection import Example
from longflow.bijections.elementwise import Elementwise, Theta
from longflow.errors import UsageError

INSET = 1e-6
ROUNDING = 2 * torch.finfo(torch.float32).eps


class Unconstrain(Elementwise):
    """The open support (a_d, b_d) of each feature onto the whole line, increasing; fixed, not learned.

        (a, ∞): z = log(x - a)    (-∞, b): z = -log(b - x)    (a, b): z = log(x - a) - log(b - x)    else: z = x

    log dz/dx = -log(x - a) - log(b - x) + log(b - a), of the ends that there are (the unconstraining transforms of
    Stan's reference manual, but for the sign of the second). No end is approached by rounding: x - a and b - x are
    exact there, and the inverse of (a, b) starts from the nearer end.

    A value exactly on an end, which would be infinite, is taken as `inset` inside: a density is not changed by its
    value at a point, so that it still integrates to 1. It is 1e-6 (of the length of an interval) until `adapt_ends`.
    Beyond an end the density is 0: the log-slope is -∞ (an end is as exact as float32: a rounding beyond is on it).

    `low` and `high` are broadcast over an event: a number for all, or one a feature as (D,) or (D, 1, ...); infinite
    where there is no end. They are buffers, hence saved with the model.
    """

    parameters_per_feature = 0
    low: Tensor
    high: Tensor
    inset: Tensor

    def __init__(self, low: Tensor | Sequence[float] | float, high: Tensor | Sequence[float] | float) -> None:
        super().__init__()
        a, b = torch.broadcast_tensors(*(torch.as_tensor(e, dtype=torch.get_default_dtype()) for e in (low, high)))
        if not bool((a < b).all()):
            raise UsageError("Unconstrain expects low < high, in float32 too")
        self.register_buffer("low", a.clone())
        self.register_buffer("high", b.clone())
        self.register_buffer("inset", INSET * torch.stack((self._width(), self._width())))

    def adapt_ends(self, x: Tensor) -> None:
        """Set each inset to half the distance from its end to the nearest of the values x, (B, D, ...), inside."""
        for k, distance in enumerate((x - self.low, self.high - x)):
            inside = torch.where((distance > 0) & distance.isfinite(), distance, inf)
            half = _least(inside, self.low.shape) / 2
            self.inset[k] = torch.where(half.isfinite() & (half > 0), half, self.inset[k])

    def ahead(self, x: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        above, below = self.low.isfinite(), self.high.isfinite()
        on_low, on_high = x <= self.low, x >= self.high
        up = torch.where(on_low, self.inset[0], torch.where(on_high, self._width() - self.inset[1], x - self.low))
        down = torch.where(on_high, self.inset[1], torch.where(on_low, self._width() - self.inset[0], self.high - x))
        up, down = torch.where(above, up, 1.0).log(), torch.where(below, down, 1.0).log()
        z = torch.where(above | below, up - down, x)
        return z, torch.where(self._outside(x), -inf, self._width().log() - up - down)

    def back(self, z: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        above, below = self.low.isfinite(), self.high.isfinite()
        both, only_above, only_below = above & below, above & ~below, below & ~above
        a, b = torch.where(above, self.low, 0.0), torch.where(below, self.high, 0.0)
        folded = torch.where(both, z, 0.0)
        share = torch.where(both, b - a, 0.0) * torch.sigmoid(-folded.abs())
        x = torch.where(both, torch.where(z < 0, a + share, b - share), z)
        x = torch.where(only_above, a + torch.where(only_above, z, 0.0).exp(), x)
        x = torch.where(only_below, b - torch.where(only_below, -z, 0.0).exp(), x)
        slope = torch.where(both, self._width().log() + F.logsigmoid(folded) + F.logsigmoid(-folded), 0.0)
        return x, slope + torch.where(only_above, z, 0.0) - torch.where(only_below, z, 0.0)

    def _width(self) -> Tensor:
        """Return the lengths of the intervals; 1, whose logarithm is 0, where an end is infinite."""
        return torch.where((self.high - self.low).isfinite(), self.high - self.low, 1.0)

    def _outside(self, x: Tensor) -> Tensor:
        under, over = self.low - ROUNDING * self.low.abs(), self.high + ROUNDING * self.high.abs()
        return (x < under) | (x > over)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls([0.0, -inf, 0.0, -inf], [inf, 1.0, 1.0, inf]), (4,), domain=(0.05, 0.95))
        yield Example(cls([-3.0, -inf, -2.0], [inf, 7.0, 5.0]), (3,), domain=(-1.9, 4.9))
        yield Example(cls(torch.tensor([[[0.0]], [[-inf]]]), inf), (2, 2, 2), domain=(0.1, 3.0))


def _least(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the least of the values of x that one number of that shape is broadcast to."""
    axes = [k for k, n in enumerate((*[1] * (x.dim() - len(shape)), *shape)) if n == 1]
    return x.amin(axes).reshape(shape) if axes else x

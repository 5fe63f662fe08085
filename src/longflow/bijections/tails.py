"""What a spline of the interval [-B, B] is outside it, and which derivatives it has at its ends."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from longflow.bijections.circular import wrapped


class Tails(ABC):
    """The ends of an interval map y = g(x), g(±B) = ±B, with slopes at its K + 1 knots."""

    @staticmethod
    @abstractmethod
    def free(bins: int) -> int:
        """Return how many of the K + 1 slopes are parameters."""

    @staticmethod
    @abstractmethod
    def slopes(free: Tensor) -> Tensor:
        """Return the parameters of all slopes, (K + 1, ...), of those that are free; 0 stands for the slope 1."""

    @staticmethod
    @abstractmethod
    def enter(x: Tensor, bound: float) -> Tensor:
        """Bring x into [-B, B]."""

    @staticmethod
    @abstractmethod
    def leave(x: Tensor, inside: Tensor, y: Tensor, log_slope: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and log-slope at x, of those at the point inside that it was brought to."""


class Linear(Tails):
    """The identity outside: the slopes at the ends are 1."""

    @staticmethod
    def free(bins: int) -> int:
        return bins - 1

    @staticmethod
    def slopes(free: Tensor) -> Tensor:
        return F.pad(free, (0, 0) * (free.dim() - 1) + (1, 1))

    @staticmethod
    def enter(x: Tensor, bound: float) -> Tensor:
        return x.clamp(-bound, bound)

    @staticmethod
    def leave(x: Tensor, inside: Tensor, y: Tensor, log_slope: Tensor) -> tuple[Tensor, Tensor]:
        within = inside == x
        return torch.where(within, y, x), torch.where(within, log_slope, torch.zeros_like(log_slope))


class Circular(Tails):
    """x is an angle of period 2B, represented in [-B, B): both ends are one point, with one slope.

    Angles of other periods are brought into that interval.
    """

    @staticmethod
    def free(bins: int) -> int:
        return bins

    @staticmethod
    def slopes(free: Tensor) -> Tensor:
        return torch.cat((free, free[:1]))

    @staticmethod
    def enter(x: Tensor, bound: float) -> Tensor:
        return wrapped(x, bound)

    @staticmethod
    def leave(x: Tensor, inside: Tensor, y: Tensor, log_slope: Tensor) -> tuple[Tensor, Tensor]:
        return y, log_slope


class Bounded(Tails):
    """[-B, B] onto itself; past its ends, where rounding may lead, it goes on straight, with the slope at the end."""

    @staticmethod
    def free(bins: int) -> int:
        return bins + 1

    @staticmethod
    def slopes(free: Tensor) -> Tensor:
        return free

    @staticmethod
    def enter(x: Tensor, bound: float) -> Tensor:
        return x.clamp(-bound, bound)

    @staticmethod
    def leave(x: Tensor, inside: Tensor, y: Tensor, log_slope: Tensor) -> tuple[Tensor, Tensor]:
        return y + (x - inside) * log_slope.exp(), log_slope


TAILS: dict[str, type[Tails]] = {"linear": Linear, "circular": Circular, "bounded": Bounded}

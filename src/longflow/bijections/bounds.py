"""Bounds on the log-scale of an affine map, each named after what it does and cited after who uses it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SigmoidPlusTwo(nn.Module):
    """log σ(s + 2): the scale is in (0, 1), and 0.88 at s = 0 (Glow's code: Kingma & Dhariwal 2018)."""

    def forward(self, s: Tensor) -> Tensor:
        """Return the log-scale."""
        return F.logsigmoid(s + 2)


class ScaledTanh(nn.Module):
    """γ tanh s with one learned γ (RealNVP's code: Dinh et al. 2017, where it starts at 0, hence at the identity).

    Beside a conditioner whose output starts at 0 it must start elsewhere: of a product of noughts neither ever moves.
    """

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.tensor(start))

    def forward(self, s: Tensor) -> Tensor:
        """Return the log-scale."""
        return self.gamma * s.tanh()


class HalfToOne(nn.Module):
    """log(½ + ½ σ(s)): the scale is in (½, 1), so that the inverse cannot explode (Behrmann et al. 2021)."""

    def forward(self, s: Tensor) -> Tensor:
        """Return the log-scale."""
        return torch.log(0.5 + 0.5 * s.sigmoid())


class SoftClip(nn.Module):
    """s / (1 + |s| / limit): in (-limit, limit), of slope 1 at s = 0; 6.9 keeps the scale within a factor of 1000."""

    def __init__(self, limit: float = 6.9) -> None:
        super().__init__()
        self.limit = limit

    def extra_repr(self) -> str:
        return f"limit={self.limit}"

    def forward(self, s: Tensor) -> Tensor:
        """Return the log-scale."""
        return s / (1 + s.abs() / self.limit)

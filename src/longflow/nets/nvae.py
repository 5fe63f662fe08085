"""NVAE's networks: residual cells, and the two towers that they stand in (Vahdat & Kautz 2020)."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import cast

import torch
from torch import Tensor, nn

from longflow.errors import choose
from longflow.nets.conv import ChannelNorm
from longflow.nets.resnet import BatchNorm2d

NORMS: dict[str, Callable[[int], nn.Module]] = {"batch": BatchNorm2d, "act": ChannelNorm}
RESIDUE = 0.1
EXPANSION, OUTER_EXPANSION = 6, 3
"""How much wider than its input a decoder cell is inside: within the groups, and after them."""


class SqueezeExcite(nn.Module):
    """x times a number in (0, 1) for each channel, from the means over space (Hu et al. 2018)."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        hidden = max(maps // 16, 4)
        self.layers = nn.Sequential(nn.Linear(maps, hidden), nn.ReLU(), nn.Linear(hidden, maps), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of the shape of x."""
        return x * self.layers(x.mean((2, 3)))[:, :, None, None]


class Cell(nn.Module):
    """skip(x) + 0.1 · body(x): a deep tower of them starts near its skips."""

    def __init__(self, skip: nn.Module, *body: nn.Module) -> None:
        super().__init__()
        self.skip, self.body = skip, nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, maps out, ...)."""
        return self.skip(x) + RESIDUE * self.body(x)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the two towers of a model agree on; the builder's docstring says what the numbers mean.

    `groups` are those of each scale, the finest first. The finest comes after `halvings` of the picture's sides; each
    halving multiplies the maps by `growth`.
    """

    maps: int
    growth: int
    groups: tuple[int, ...]
    latents: int
    halvings: int
    cells: int
    outer_cells: int
    norm: str

    def __post_init__(self) -> None:
        choose("norm", self.norm, NORMS)

    @property
    def unit(self) -> int:
        """What sides must divide by."""
        return 2 ** (self.halvings + len(self.groups) - 1)

    def maps_after(self, halvings: int) -> int:
        """Return the maps after so many halvings of the picture's sides."""
        return self.maps * self.growth**halvings

    def maps_of(self, scale: int) -> int:
        """Return the maps of a scale, 0 being the finest."""
        return self.maps_after(self.halvings + scale)

    def encoder_cell(self, maps: int) -> Cell:
        """Return (norm, swish, 3×3) twice and squeeze-excitation."""
        return Cell(nn.Identity(), *self._convolutions(maps, maps, 1))

    def halving(self, before: int) -> Cell:
        """Return an encoder cell that halves the sides of maps which `before` halvings have made."""
        maps, out = self.maps_after(before), self.maps_after(before + 1)
        return Cell(nn.Conv2d(maps, out, 2, 2), *self._convolutions(maps, out, 2))

    def _convolutions(self, maps: int, out: int, stride: int) -> list[nn.Module]:
        norm = NORMS[self.norm]
        first = [norm(maps), nn.SiLU(), nn.Conv2d(maps, out, 3, stride, 1, bias=False)]
        return [*first, norm(out), nn.SiLU(), nn.Conv2d(out, out, 3, 1, 1), SqueezeExcite(out)]

    def decoder_cell(self, maps: int, expansion: int) -> Cell:
        """Return 1×1 to `expansion` times the maps, depthwise 5×5, 1×1 and squeeze-excitation, all normalised."""
        return Cell(nn.Identity(), *self._separable(maps, maps, expansion))

    def doubling(self, after: int, expansion: int) -> Cell:
        """Return a decoder cell that doubles the sides of maps which are `after` + 1 halvings from the picture's."""
        maps, out = self.maps_after(after + 1), self.maps_after(after)
        skip = nn.Sequential(nn.Conv2d(maps, out, 1), nn.Upsample(scale_factor=2))
        return Cell(skip, *self._separable(maps, out, expansion, nn.Upsample(scale_factor=2)))

    def _separable(self, maps: int, out: int, expansion: int, *between: nn.Module) -> list[nn.Module]:
        # What grows the sides comes after the first 1×1 convolution: before it, the same values would cost four times.
        norm, wide = NORMS[self.norm], maps * expansion
        widen = [norm(maps), nn.Conv2d(maps, wide, 1, bias=False), norm(wide), nn.SiLU()]
        depthwise = [nn.Conv2d(wide, wide, 5, padding=2, groups=wide, bias=False), norm(wide), nn.SiLU()]
        return [*widen, *between, *depthwise, nn.Conv2d(wide, out, 1, bias=False), norm(out), SqueezeExcite(out)]


class BottomUp(nn.Module):
    """The encoder: maps data to the features that each group of latents sees, the coarsest group's first.

    From (B, C, H, W) to a list of (B, maps of the group's scale, ...).
    """

    def __init__(self, channels: int, plan: Plan) -> None:
        super().__init__()
        outer = [
            cell
            for k in range(plan.halvings)
            for cell in (
                *(plan.encoder_cell(plan.maps_after(k)) for _ in range(plan.outer_cells - 1)),
                plan.halving(k),
            )
        ]
        self.first = nn.Sequential(nn.Conv2d(channels, plan.maps, 3, padding=1), *outer)
        self.groups = nn.ModuleList(
            nn.Sequential(
                *([plan.halving(plan.halvings + scale - 1)] if scale and not group else []),
                *(plan.encoder_cell(plan.maps_of(scale)) for _ in range(plan.cells)),
            )
            for scale, groups in enumerate(plan.groups)
            for group in range(groups)
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features."""
        x = self.first(x.contiguous(memory_format=torch.channels_last))
        features = [x := group(x) for group in self.groups]
        return features[::-1]


class Group(nn.Module):
    """A group of latents of one scale: what precedes it, its prior, its posterior, and how it joins the tower.

    Of the first group nothing precedes, and the prior's numbers are 0.
    """

    def __init__(self, plan: Plan, scale: int, *before: nn.Module, first: bool = False) -> None:
        super().__init__()
        maps, numbers = plan.maps_of(scale), 2 * plan.latents
        self.scale, self.numbers = scale, numbers
        self.before = nn.Sequential(*before)
        self.prior = None if first else nn.Sequential(nn.ELU(), nn.Conv2d(maps, numbers, 1))
        self.seen = nn.Conv2d(maps, maps, 1)
        self.residual = nn.Conv2d(maps, numbers, 3, padding=1)
        self.joined = nn.Conv2d(maps + plan.latents, maps, 1)

    def prior_of(self, h: Tensor) -> Tensor:
        """Return what h, (B, maps, ...), tells of the prior: (B, 2 latents, ...)."""
        return h.new_zeros(len(h), self.numbers, *h.shape[2:]) if self.prior is None else self.prior(h)

    def residual_of(self, h: Tensor, features: Tensor) -> Tensor:
        """Return what is added to the prior's numbers for the posterior."""
        return self.residual(features + self.seen(h))

    def join(self, h: Tensor, z: Tensor) -> Tensor:
        """Return what goes on down the tower."""
        return self.joined(torch.cat((h, z), 1))


class TopDown(nn.Module):
    """The decoder: from a learned constant down through all groups, the coarsest first, to (B, channels, H, W).

    Inference and generation walk it alike; they differ in how they choose each group's latents, (B, latents, ...).
    """

    def __init__(self, channels: int, plan: Plan, space: tuple[int, ...]) -> None:
        super().__init__()
        top = len(plan.groups) - 1
        self.start = nn.Parameter(torch.randn(1, plan.maps_of(top), *(side // plan.unit for side in space)))
        places = [(scale, group) for scale in range(top, -1, -1) for group in range(plan.groups[scale])]
        self.groups = nn.ModuleList(
            Group(plan, scale, *_before(plan, scale, group), first=(scale, group) == places[0])
            for scale, group in places
        )
        self.latent_shapes = [
            (plan.latents, *(side // 2 ** (plan.halvings + scale) for side in space)) for scale, _ in places
        ]
        outer = [
            cell
            for k in reversed(range(plan.halvings))
            for cell in (
                plan.doubling(k, OUTER_EXPANSION),
                *(plan.decoder_cell(plan.maps_after(k), OUTER_EXPANSION) for _ in range(plan.outer_cells - 1)),
            )
        ]
        self.last = nn.Sequential(*outer, nn.ELU(), nn.Conv2d(plan.maps, channels, 3, padding=1))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def steps(self) -> list[Group]:
        """The groups, the coarsest first."""
        return cast("list[Group]", list(self.groups))

    @property
    def sizes(self) -> list[int]:
        """The latents of each group, the coarsest first."""
        return [prod(shape) for shape in self.latent_shapes]

    def forward(self, rows: int, choose: Callable[[int, Group, Tensor], Tensor]) -> Tensor:
        """Return (rows, channels, H, W), where `choose(l, group, h)` returns the latents of the group l."""
        h = self.start.expand(rows, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        for index, group in enumerate(self.steps):
            h = group.before(h)
            h = group.join(h, choose(index, group, h))
        return self.last(h)


def _before(plan: Plan, scale: int, group: int) -> list[nn.Module]:
    """Return the cells before a group: none before the first, and a doubling first in each finer scale."""
    coarsest = scale == len(plan.groups) - 1
    doubling = [] if coarsest or group else [plan.doubling(plan.halvings + scale, EXPANSION)]
    cells = 0 if coarsest and not group else plan.cells
    return [*doubling, *(plan.decoder_cell(plan.maps_of(scale), EXPANSION) for _ in range(cells))]


def top_singular_values(model: nn.Module) -> Tensor:
    """Return the largest singular value of each convolution's weights as a matrix (out, in · side²), (layers,).

    Exact, and without state: the smaller Gram matrix of each gives the vector u, and ‖Wᵀu‖ has value and gradient.
    Convolutions of one shape go together.
    """
    weights = [m.weight.flatten(1) for m in model.modules() if isinstance(m, nn.Conv2d)]
    lying = [w if w.shape[0] <= w.shape[1] else w.mT for w in weights]
    shapes = sorted({tuple(w.shape) for w in lying})
    batches = [torch.stack([w for w in lying if tuple(w.shape) == shape]) for shape in shapes]
    return torch.cat([_top(w) for w in batches])


def _top(weights: Tensor) -> Tensor:
    """Return the largest singular value of each of (n, M, N), M ≤ N."""
    with torch.no_grad():
        u = torch.linalg.eigh(weights @ weights.mT).eigenvectors[..., -1:]
    return torch.linalg.vector_norm(weights.mT @ u, dim=(1, 2))


def top_gains(model: nn.Module) -> Tensor:
    """Return the largest |scale| of each normalisation of batches, (layers,)."""
    found = [m.scale.abs().max() for m in model.modules() if isinstance(m, BatchNorm2d)]
    return torch.stack(found) if found else torch.zeros(1)

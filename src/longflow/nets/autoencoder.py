"""Networks from data to a code and back: fully connected, convolutional with strides, residual at one size."""

import itertools
from collections.abc import Sequence
from math import ceil, prod

from torch import Tensor, nn

from longflow.nets.resnet import BatchNorm2d

SLOPE = 0.2
"""Of leaky rectifiers, below 0."""


def start_by_glorot(network: nn.Module) -> None:
    """Start linear layers and convolutions at uniform weights of ±√(6 / (fan in + fan out)), and biases of nought.

    (Glorot & Bengio 2010, equation 16; Keras' default, hence what its users' settings presume.)
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Dense(nn.Module):
    """Hidden layers of rectified units, so many as `widths` says, from events (B, *shape_in) to (B, *shape_out)."""

    def __init__(self, shape_in: tuple[int, ...], shape_out: tuple[int, ...], *, widths: Sequence[int]) -> None:
        super().__init__()
        self.shape_out = shape_out
        sizes = [prod(shape_in), *widths, prod(shape_out)]
        linear = [nn.Linear(before, after) for before, after in itertools.pairwise(sizes)]
        between = [layer for one in linear[:-1] for layer in (one, nn.ReLU())]
        self.layers = nn.Sequential(*between, linear[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, *shape_out)."""
        return self.layers(x.flatten(1)).unflatten(1, self.shape_out)


class ConvEncoder(nn.Module):
    """Convolutions (3×3, stride 2) that halve the sides and double the maps, a layer of units, and a linear one.

    Maps (B, C, H, W) to (B, features), through `halvings` sizes of width, 2 width, ... maps. At each size `steps` - 1
    convolutions of stride 1 follow; without `units` there is no layer of them.
    """

    def __init__(
        self, shape: tuple[int, ...], features: int, *, width: int, halvings: int, units: int, steps: int = 1
    ) -> None:
        super().__init__()
        maps = [shape[0], *(width * 2**k for k in range(halvings))]
        space = [ceil(side / 2**halvings) for side in shape[1:]]
        convs = [
            nn.Conv2d(after if step else before, after, 3, 1 if step else 2, 1)
            for before, after in itertools.pairwise(maps)
            for step in range(steps)
        ]
        self.layers = nn.Sequential(
            *_rectified(convs), nn.Flatten(), *_linear([maps[-1] * prod(space), *([units] if units else []), features])
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, features)."""
        return self.layers(x)


class ConvDecoder(nn.Module):
    """The mirror of `ConvEncoder`: from (B, features) to (B, *shape), by transposed convolutions (4×4, stride 2).

    Sides that are no multiple of 2^halvings are cut from the next larger ones that are.
    """

    def __init__(
        self, features: int, shape: tuple[int, ...], *, width: int, halvings: int, units: int, steps: int = 1
    ) -> None:
        super().__init__()
        self.space = shape[1:]
        maps = [*(width * 2**k for k in reversed(range(halvings))), shape[0]]
        small = [ceil(side / 2**halvings) for side in shape[1:]]
        convs = [
            conv
            for before, after in itertools.pairwise(maps)
            for conv in (
                *(nn.Conv2d(before, before, 3, 1, 1) for _ in range(steps - 1)),
                nn.ConvTranspose2d(before, after, 4, 2, 1),
            )
        ]
        self.layers = nn.Sequential(
            *_linear([features, *([units] if units else []), maps[0] * prod(small)]),
            nn.LeakyReLU(SLOPE),
            nn.Unflatten(1, (maps[0], *small)),
            *_rectified(convs[:-1]),
            convs[-1],
        )

    def forward(self, z: Tensor) -> Tensor:
        """Return (B, *shape)."""
        return self.layers(z)[:, :, : self.space[0], : self.space[1]]


def _rectified(convs: Sequence[nn.Module]) -> list[nn.Module]:
    return [layer for conv in convs for layer in (conv, nn.LeakyReLU(SLOPE))]


def _linear(sizes: Sequence[int]) -> list[nn.Module]:
    """Return linear layers of those sizes, rectified between."""
    layers = [nn.Linear(before, after) for before, after in itertools.pairwise(sizes)]
    return [*_rectified(layers[:-1]), layers[-1]]


class ResidualStep(nn.Module):
    """x + a 1×1 convolution, from 0, of a normalised and rectified 3×3 one (f-VAE's code); linear maps for vectors."""

    def __init__(self, shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        if len(shape) == 3:
            first: nn.Module = nn.Conv2d(shape[0], width, 3, padding=1, bias=False)
            last: nn.Module = nn.Conv2d(width, shape[0], 1)
            between: nn.Module = BatchNorm2d(width)
        else:
            first, last, between = nn.Linear(shape[0], width), nn.Linear(width, shape[0]), nn.Identity()
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.layers = nn.Sequential(first, between, nn.ReLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        """Return values of the shape of x."""
        return x + self.layers(x)


class ResidualEncoder(nn.Module):
    """Residual steps at ever smaller sides, as many numbers out as in: before each stage space goes into channels.

    Maps (B, C, H, W) to (B, C·4^(halvings - 1), H/2^(halvings - 1), ...): the last squeeze is undone, as the flow that
    follows begins with one. Vectors keep their shape.
    """

    def __init__(self, shape: tuple[int, ...], *, halvings: int, steps: int, width: int | None) -> None:
        super().__init__()
        self.picture = len(shape) == 3
        stages = halvings if self.picture else 1
        shapes = [_squeezed(shape, k + 1) if self.picture else shape for k in range(stages)]
        self.stages = nn.ModuleList(
            nn.Sequential(*(ResidualStep(inner, width * 2**k if width else inner[0]) for _ in range(steps)))
            for k, inner in enumerate(shapes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the code."""
        for stage in self.stages:
            x = stage(_squeeze(x) if self.picture else x)
        return _unsqueeze(x) if self.picture else x


class ResidualDecoder(nn.Module):
    """The mirror of `ResidualEncoder`: from a code of its shape to (B, *shape)."""

    def __init__(self, shape: tuple[int, ...], *, halvings: int, steps: int, width: int | None) -> None:
        super().__init__()
        self.picture = len(shape) == 3
        stages = range(halvings if self.picture else 1)
        shapes = [_squeezed(shape, k + 1) if self.picture else shape for k in stages]
        self.stages = nn.ModuleList(
            nn.Sequential(*(ResidualStep(shapes[k], width * 2**k if width else shapes[k][0]) for _ in range(steps)))
            for k in reversed(stages)
        )

    def forward(self, h: Tensor) -> Tensor:
        """Return (B, *shape)."""
        x = _squeeze(h) if self.picture else h
        for stage in self.stages:
            x = _unsqueeze(stage(x)) if self.picture else stage(x)
        return x


def _squeeze(x: Tensor) -> Tensor:
    """Return (B, 4C, H/2, W/2); unlike torch's, of an empty batch too."""
    return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)


def _unsqueeze(x: Tensor) -> Tensor:
    return x.unflatten(1, (-1, 2, 2)).permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)


def _squeezed(shape: tuple[int, ...], times: int) -> tuple[int, ...]:
    return (shape[0] * 4**times, shape[1] // 2**times, shape[2] // 2**times)

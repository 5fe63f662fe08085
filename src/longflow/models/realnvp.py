"""RealNVP: density estimation by real-valued non-volume-preserving maps (Dinh, Sohl-Dickstein & Bengio, ICLR 2017)."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from longflow.bijections import (
    Affine,
    BatchNorm,
    Bijection,
    Chain,
    Checkerboard,
    Coupling,
    FactorOut,
    Halves,
    Interleave,
    Learned,
    Permute,
    ScaledTanh,
    Squeeze,
    Under,
)
from longflow.bijections.memory import Memory, Trunk
from longflow.distributions import Flow, StandardNormal
from longflow.errors import choose
from longflow.models.checks import at_least, scales_of, vector_or_picture
from longflow.nets import MLP, BatchNorm2d, ChannelNorm, ResNet, beside

NORMS = {"batch": BatchNorm2d, "act": ChannelNorm}
MOST_SCALES = 2
VECTOR_COUPLINGS = 8
PARAMETERS = 2
"""Of an affine map: log-scale and shift."""

PRESETS: dict[str, dict[str, Any]] = {
    "cifar10": {"scales": 2, "width": 64, "blocks": 8, "norm": "batch"},
    "cifar10-narrow": {"scales": 2, "width": 64, "blocks": 8, "growth": 1, "norm": "batch"},
    "imagenet32": {"scales": 4, "width": 32, "blocks": 4, "norm": "batch"},
    "digits": {"scales": 2, "width": 24, "blocks": 2},
}


def realnvp(
    shape: tuple[int, ...],
    *,
    scales: int | None = None,
    width: int = 32,
    blocks: int = 4,
    growth: int = 2,
    norm: Literal["act", "batch"] = "act",
    memory: Memory = "full",
    trunk: Trunk = "float64",
    context: int = 0,
) -> Flow:
    """Affine couplings of checkerboards and of channels, at several scales, with residual conditioners.

    Each scale takes three checkerboard couplings, squeezes, takes three channel couplings, and finishes half of the
    features; the last scale takes four checkerboard couplings. Log-scales are γ tanh s, the moved half is normalised
    after each coupling, and everything that is finished has a standard normal prior. The paper's first bijection is
    the logit (`--preprocess logit`). For vectors, of which the paper says nothing, there is one scale of eight
    couplings of even and odd features, with fully connected conditioners of 2·blocks layers.

    The paper normalises batches; by default scales are learned instead (ActNorm), so that no row depends on the others.
    With norm "batch", in training mode rows meet and decode does not undo encode; the statistics of the evaluation mode
    are not running averages, but are taken from training rows under the weights that are evaluated: `train` does so; a
    loop of your own must call `settle(flow, rows)` before it evaluates or samples.

    The transform is the paper's (eq. 7), x·exp(s) + t; its code's is (x + t)·exp(s). A conditioner's half is normalised
    before it is put on the checkerboard; the code normalises the masked picture and doubles it. The presets are the
    paper's for CIFAR-10 and 32×32 ImageNet, and "cifar10-narrow", whose width does not double: of 6.4 million
    parameters, which secondary tables ascribe to the paper's, while what the paper describes has 19.6.

    Args:
        shape: Shape of an event, (D,) or (C, H, W), of at least two numbers.
        scales: Scales of a picture, whose sides must divide by 2^scales; by default as many as they allow, at most 2.
        width: Maps (or units) of a conditioner at the first scale.
        blocks: Residual blocks (of two layers) of a conditioner.
        growth: Width multiplier: the factor by which the width grows whenever a squeeze halves the sides.
        norm: Normalisation: learned scales that start from data, or the batch's statistics.
        memory: What the gradient keeps: everything, each coupling's input, or (reversible, with norm "act") the end.
        trunk: Type in which a scale carries values from coupling to coupling; conditioners compute in the model's.
        context: Features of a context vector that the conditioners see; 0 for none.
    """
    _check(shape, scales, width, blocks, growth, context)
    choose("norm", norm, NORMS)
    space = tuple([1] * (len(shape) - 1))

    def chain(parts: Iterable[Bijection]) -> Bijection:
        return Chain(*parts, memory=memory, trunk=trunk)

    def normalise(features: int) -> Bijection:
        return BatchNorm((features, *space)) if norm == "batch" else Learned(Affine(), (features, *space))

    def couple(moved: int, conditioner: nn.Module) -> Bijection:
        start = 0.0 if space else 1.0
        return Coupling(Chain(Affine(ScaledTanh(start)), normalise(moved)), conditioner)

    def residual(features: int, moved: int, maps: int) -> ResNet:
        return ResNet(features + context, PARAMETERS * moved, width=maps, blocks=blocks, norm=NORMS[norm])

    def checkerboards(number: int, features: int, maps: int) -> list[Bijection]:
        views = [Checkerboard(k % 2) for k in range(number)]
        nets = [InPlace(view, features, residual(2 * features + 1, features, maps), norm) for view in views]
        return [Under(view, couple(features, net)) for view, net in zip(views, nets, strict=True)]

    def channels(features: int, maps: int) -> Bijection:
        nets = [Signed(features, residual(2 * features, features, maps), norm) for _ in range(3)]
        return chain(Under(Halves(k % 2), couple(features, net)) for k, net in enumerate(nets))

    def scale(features: int, left: int, maps: int) -> Bijection:
        if left == 1:
            return chain(checkerboards(4, features, maps))
        return Chain(
            chain(checkerboards(3, features, maps)),
            Under(Squeeze(), channels(2 * features, growth * maps)),
            Under(diagonals(features), FactorOut(scale(2 * features, left - 1, growth * maps))),
        )

    def vectors() -> Bijection:
        first, second = shape[0] // 2, shape[0] - shape[0] // 2

        def net() -> MLP:
            return MLP(first, PARAMETERS * second, hidden=width, depth=2 * blocks, context=context)

        return chain(Under(Interleave(k % 2), couple(second, net())) for k in range(VECTOR_COUPLINGS))

    whole = scale(shape[0], scales_of("realnvp", shape, scales, MOST_SCALES), width) if space else vectors()
    return Flow(whole, StandardNormal(shape), (context,) if context else None)


class Signed(nn.Module):
    """A conditioner of normalised features beside their negatives, so that ReLU loses neither sign."""

    def __init__(self, features: int, net: nn.Module, norm: str) -> None:
        super().__init__()
        self.norm, self.net = NORMS[norm](features), net

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the parameters of the half that moves."""
        x = self.norm(x)
        return self.net(beside(torch.cat((x, -x), 1), context))


class InPlace(nn.Module):
    """A conditioner that sees its half at its places in the picture, the others being 0, beside a mask of the places.

    Its network maps the whole picture; of what comes out, only the places of the moving half are taken.
    """

    def __init__(self, view: Checkerboard, features: int, net: nn.Module, norm: str) -> None:
        super().__init__()
        self.view, self.norm, self.net = view, NORMS[norm](features), net

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the parameters of the half that moves."""
        x = self.norm(x)
        seen = self._placed(x)
        mask = self._placed(torch.ones_like(x[:, :1]))
        whole = self.net(beside(torch.cat((seen, -seen, mask), 1), context))
        return torch.cat([self.view.arrange(part).chunk(2, 1)[1] for part in whole.chunk(PARAMETERS, 1)], 1)

    def _placed(self, half: Tensor) -> Tensor:
        return self.view.restore(torch.cat((half, torch.zeros_like(half)), 1))


def diagonals(features: int) -> Bijection:
    """Squeeze so that the first half of the channels are the squares of one diagonal (RealNVP, section 3.6)."""
    first = [4 * c + k for c in range(features) for k in (0, 3)]
    second = [4 * c + k for c in range(features) for k in (1, 2)]
    return Chain(Squeeze(), Permute(first + second))


def _check(shape: tuple[int, ...], scales: int | None, width: int, blocks: int, growth: int, context: int) -> None:
    vector_or_picture("realnvp", shape)
    at_least("realnvp", 1, width=width, blocks=blocks, growth=growth, scales=scales)
    at_least("realnvp", 0, context=context)

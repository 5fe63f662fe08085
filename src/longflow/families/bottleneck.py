"""The variational information bottleneck: a noisy code that says of x what helps to tell y, and little else."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from longflow.distributions import Normal, StandardNormal
from longflow.distributions.distribution import total
from longflow.errors import UsageError
from longflow.families.representation import Representation, check_weight
from longflow.objectives import Turn


class Bottleneck(nn.Module):
    """A layer that maps parameters to a noisy code in training, and to its mean in evaluation.

    Parameters, (B, 2·latent), are μ and then log σ of q(z | x) = N(μ, diag σ²). It has no weights, and can follow any
    layer of any network; add `rate(parameters)`, weighted, to the loss.
    """

    def __init__(self, latent: int) -> None:
        super().__init__()
        if latent < 1:
            raise UsageError(f"a bottleneck expects at least 1 number; {latent} came")
        self.code, self.prior = Normal((latent,)), StandardNormal((latent,))

    def forward(self, parameters: Tensor) -> Tensor:
        """Return the code, (B, latent)."""
        return self.draw(parameters) if self.training else self.code.mean(parameters)

    def draw(self, parameters: Tensor) -> Tensor:
        """Draw a code for each row, (B, latent), differentiable in its parameters."""
        return self.code.sample(len(parameters), parameters)

    def rate(self, parameters: Tensor) -> Tensor:
        """Return KL(q(z | x) ‖ N(0, I)), (B,), in nats.

        Its mean over x is I(X; Z) + KL(q(z) ‖ N(0, I)): an upper bound on what codes say of x.
        """
        divergence = self.code.divergence(parameters, self.prior)
        assert divergence is not None
        return total(divergence)


class Multiplier(nn.Module):
    """What dual ascent has added to the weight of a constraint, kept with the model's weights (Peng et al. 2019)."""

    added: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("added", torch.zeros(()))

    @torch.no_grad()
    def ascend(self, start: float, change: Tensor) -> None:
        """Move the weight, `start` + added, by a change, and not below 0: once after each step of the optimiser."""
        self.added.copy_((self.added + change).clamp_min(0.0 - start))


class VIB(Representation):
    """Encoder, bottleneck and a linear classifier of the code (Alemi et al. 2017).

        E[-log q(y | z)] + β E KL(q(z | x) ‖ N(0, I))

    The first is at least H(Y | Z) and the second at least I(X; Z), both of the noisy code. Predictions are at the
    code's mean, of which no such bound holds, or averaged over draws.
    """

    def __init__(self, shape: tuple[int, ...], encoder: nn.Module, latent: int, classes: int) -> None:
        super().__init__(shape, (latent,))
        if classes < 2:
            raise UsageError(f"an information bottleneck expects at least 2 classes; {classes} came")
        self.predicts = classes
        self.encoder, self.bottleneck = encoder, Bottleneck(latent)
        self.classifier, self.multiplier = nn.Linear(latent, classes), Multiplier()

    def code(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.bottleneck.code.moments(self.encoder(self.inner(x)))

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of q(y | z), (B, K), of a noisy code in training and of its mean in evaluation."""
        return self.classifier(self.bottleneck(self.encoder(self.inner(x))))

    def terms(self, x: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return `cross_entropy`, -log q(y | z) of one draw, and `rate`."""
        if context is None:
            raise UsageError("an information bottleneck expects the classes of its data; none came")
        parameters = self.encoder(self.inner(x))
        logits = self.classifier(self.bottleneck.draw(parameters))
        return {
            "cross_entropy": F.cross_entropy(logits, context, reduction="none"),
            "rate": self.bottleneck.rate(parameters),
        }

    def probabilities(self, x: Tensor, draws: int = 0) -> Tensor:
        parameters = self.encoder(self.inner(x))
        if not draws:
            return self.classifier(self.bottleneck.code.mean(parameters)).softmax(1)
        found = [self.classifier(self.bottleneck.draw(parameters)).softmax(1) for _ in range(draws)]
        return torch.stack(found).mean(0)


@dataclass(frozen=True)
class InformationBottleneck:
    """The cross-entropy of labels plus a price of what codes say of data, in bits (Alemi et al. 2017).

        E[-log q(y | z)] + beta · max(E KL(q(z | x) ‖ p(z)) - threshold, 0)

    `model.terms(x, classes)` must return both expectations row by row, in nats, as "cross_entropy" and "rate". Under a
    target, dual ascent on the constraint that the mean rate be at most that moves the weight after each step of the
    optimiser (Peng et al. 2019): weight ← max(0, weight + ascent · (E KL - target)). `model.multiplier` keeps what it
    has added.

    Attributes:
        beta: Weight of the rate; under a target, where it starts.
        threshold: Nats of rate that cost nothing, on average over a batch.
        target: Most nats of rate that the weight is adapted to allow; by default the weight is fixed.
        ascent: Change of an adapted weight for each nat of rate above the target, at each step.
    """

    beta: float = 1e-3
    threshold: float = 0.0
    target: float | None = None
    ascent: float = 1e-4

    parts: ClassVar[tuple[str, ...]] = ("",)

    def __post_init__(self) -> None:
        for name in ("beta", "threshold", "ascent"):
            check_weight(name, getattr(self, name))
        if self.target is not None:
            check_weight("target", self.target)
            if self.threshold or not self.ascent:
                raise UsageError("a target of the rate expects an ascent above 0 and no threshold")

    def __call__(self, model: nn.Module, x: Tensor, context: Tensor | None, done: float = 1.0) -> Iterator[Turn]:
        """Yield the loss once; then take the step of dual ascent."""
        terms = model.terms(x, context)  # type: ignore[operator]
        cross_entropy, rate = terms["cross_entropy"].mean(), terms["rate"].mean()
        if self.target is None:
            yield "", (cross_entropy + self.beta * (rate - self.threshold).clamp_min(0)) / math.log(2)
        else:
            multiplier = model.get_submodule("multiplier")
            weight = self.beta + multiplier.get_buffer("added")
            yield "", (cross_entropy + weight * (rate - self.target)) / math.log(2)
            multiplier.ascend(self.beta, self.ascent * (_over_processes(rate) - self.target))  # type: ignore[operator]

    def judged(self, terms: Mapping[str, float]) -> float:
        """Return what weights are worth by their mean terms, in bits.

        Under a target, each bit of rate above it costs one: no bit of rate can tell more than one bit of a label.
        """
        weight, free = (self.beta, self.threshold) if self.target is None else (1.0, self.target)
        return (terms["cross_entropy"] + weight * max(terms["rate"] - free, 0.0)) / math.log(2)


def _over_processes(mean: Tensor) -> Tensor:
    """Return the mean over the processes of torchrun of each one's mean, without gradient."""
    mean = mean.detach().clone()
    if dist.is_initialized():
        dist.all_reduce(mean)
        mean /= dist.get_world_size()
    return mean

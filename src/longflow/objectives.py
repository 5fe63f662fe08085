"""Objectives: what a training step minimises, in turns.

An objective is called with (model, x, context, done) and yields (part, loss) pairs. The loop takes one optimiser step
on the named part of the model ("" is the whole model) before it asks for the next pair, so that a likelihood yields
once and an adversarial game as often as it has players.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longflow.errors import UsageError
from longflow.units import bits_per_dim

Turn = tuple[str, Tensor]

ALIVE = 0.01
"""Nats added to each group's KL before balancing, so that where all are 0 their shares are equal."""


class Objective(Protocol):
    """What the loop needs of an objective."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the submodules that it trains."""

    def __call__(self, model: nn.Module, x: Tensor, context: Tensor | None, done: float = 1.0) -> Iterator[Turn]:
        """Yield (part, loss) for one batch x of shape (B, *shape), when a share `done` of the run's steps is taken."""


@dataclass(frozen=True)
class MaximumLikelihood:
    """Minus the mean log-likelihood, in bits per dimension of data in unit bins.

    `model(x, context)` must return log-likelihoods of shape (B,), in nats.
    """

    parts: tuple[str, ...] = ("",)

    def __call__(self, model: nn.Module, x: Tensor, context: Tensor | None, done: float = 1.0) -> Iterator[Turn]:
        """Yield the loss once."""
        yield "", bits_per_dim(model(x, context).mean(), prod(x.shape[1:]))


@dataclass(frozen=True)
class WeightedLikelihood:
    """Minus the mean of w·log p(x), in bits per dimension: maximum likelihood of rows that count w ≥ 0 times.

    The weight of a row is the first feature of its context, (B, 1 + c); the other c are the model's own context, and
    where there are none it has none. Weights of mean 1 over the data (`weigh`) leave the scale of the loss as it is;
    they are not normalised by batches, which would bias the gradient.
    """

    parts: tuple[str, ...] = ("",)

    def __call__(self, model: nn.Module, x: Tensor, context: Tensor | None, done: float = 1.0) -> Iterator[Turn]:
        """Yield the loss once."""
        if context is None:
            raise UsageError("weighted likelihood expects weights as the first feature of the context; none came")
        weights, rest = context[:, 0], context[:, 1:]
        log_prob = model(x, rest if rest.shape[1] else None)
        yield "", bits_per_dim((weights * log_prob).mean(), prod(x.shape[1:]))


def weigh(weights: Tensor, context: Tensor | None = None) -> Tensor:
    """Return weights of rows, (N,), at mean 1, before the features of their context, (N, c): (N, 1 + c).

    Raises UsageError unless the weights are finite, not negative and not all 0.
    """
    wrong = (~weights.isfinite() | (weights < 0)).nonzero().flatten().tolist()
    if weights.dim() != 1 or wrong:
        came = f"{weights[wrong[0]]} in row {wrong[0]}" if weights.dim() == 1 else f"shape {tuple(weights.shape)}"
        raise UsageError(f"expected a finite weight >= 0 for each row; {came} came")
    if not bool(weights.sum() > 0):
        raise UsageError("expected a weight above 0 for some row; all are 0")
    if context is not None and len(context) != len(weights):
        raise UsageError(f"expected a weight for each of {len(context)} rows; {len(weights)} came")
    column = (weights / weights.mean())[:, None]
    return column if context is None else torch.cat((column, context), 1)


@dataclass(frozen=True)
class NoisyLikelihood:
    """Maximum likelihood of the density of x + U[low, high), in place of dequantisation to [0, 1).

    For a `Dequantised` model: it scores with the `density` of continuous data inside. With the window [-1.55, 1) in
    levels of 1/255 this is the essay's x/255 - 0.01·U[0, 1), shifted by one level so that the bin [x, x + 1) is inside.
    """

    low: float
    high: float
    parts: tuple[str, ...] = ("",)

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise UsageError(f"training noise expects low < high; {self.low} and {self.high} came")

    def __call__(self, model: nn.Module, x: Tensor, context: Tensor | None, done: float = 1.0) -> Iterator[Turn]:
        """Yield the loss once."""
        noisy = x + self.low + (self.high - self.low) * torch.rand_like(x)
        yield "", bits_per_dim(model.get_submodule("density")(noisy, context).mean(), prod(x.shape[1:]))


@dataclass(frozen=True)
class ClassLikelihood:
    """`density_weight` times bits per dimension plus `weight` times a classifier's cross-entropy in bits.

    `model.joint(x, classes)` must return log-likelihoods, (B,), and logits, (B, K): log p(x | class) and an auxiliary
    classifier's, for a prior of classes (Glow's code: weights 1 and 0.01); log p(x) and log p(class | x), for a hybrid,
    whose λ (Chen et al. 2019) is density_weight / (D · weight). Without the density, `model.logits(x)` must
    return logits.
    """

    weight: float = 0.01
    density_weight: float = 1.0
    parts: tuple[str, ...] = ("",)

    def __post_init__(self) -> None:
        for name, weight in (("classifier", self.weight), ("density", self.density_weight)):
            if not weight >= 0:
                raise UsageError(f"the weight of the {name} is expected to be >= 0; {weight} came")
        if self.weight == self.density_weight == 0:
            raise UsageError("expected a weight of the classifier or of the density above 0; both are 0")

    def __call__(self, model: nn.Module, x: Tensor, context: Tensor | None, done: float = 1.0) -> Iterator[Turn]:
        """Yield the loss once."""
        if self.density_weight == 0:
            yield "", self.weight * _cross_entropy(model.logits(x), context)  # type: ignore[operator]
        else:
            log_prob, logits = model.joint(x, context)  # type: ignore[operator]
            bits = bits_per_dim(log_prob.mean(), prod(x.shape[1:]))
            yield "", self.density_weight * bits + self.weight * _cross_entropy(logits, context)


@dataclass(frozen=True)
class ELBO:
    """Minus the evidence lower bound of an autoencoder, in bits per dimension: reconstruction less KL.

    `model.parts(x, context)` must return log p(x | z), (B,), as "reconstruction" and the divergence, (B, groups), as
    "kl", in nats; for importance weights, `model.bound(x, context, K)` the bound of K draws.

    Attributes:
        beta: Weight of KL (Higgins et al. 2017); 1 is the bound.
        kl_warmup: Share of each cycle over which that weight rises from 0.
        kl_cycles: Cycles of the rise (Fu et al. 2019).
        free_bits: Nats of KL in each group that cost nothing, on average over a batch (Kingma et al. 2016).
        importance: Draws K of the importance-weighted bound that is trained in place of the plain one (IWAE: Burda et
            al. 2016).
    """

    beta: float = 1.0
    kl_warmup: float = 0.0
    kl_cycles: int = 1
    free_bits: float = 0.0
    importance: int = 1

    parts: ClassVar[tuple[str, ...]] = ("",)

    def __post_init__(self) -> None:
        for name, least in (("beta", 0), ("free_bits", 0), ("kl_warmup", 0), ("kl_cycles", 1), ("importance", 1)):
            if not least <= getattr(self, name) < math.inf:
                raise UsageError(f"expected {name} >= {least}; {getattr(self, name)} came")
        if self.kl_warmup > 1:
            raise UsageError(f"expected kl_warmup, a share of the run, of at most 1; {self.kl_warmup} came")
        if self.importance > 1 and (self.beta, self.kl_warmup, self.free_bits) != (1.0, 0.0, 0.0):
            raise UsageError("importance weights expect the plain bound: beta 1, no kl_warmup, no free_bits")

    def weight(self, done: float) -> float:
        """Return the weight of KL when a share `done` of the run is done."""
        if not self.kl_warmup or done >= 1:
            return self.beta
        return self.beta * min(1.0, math.fmod(done * self.kl_cycles, 1) / self.kl_warmup)

    def __call__(self, model: nn.Module, x: Tensor, context: Tensor | None, done: float = 1.0) -> Iterator[Turn]:
        """Yield the loss once."""
        if self.importance > 1:
            bound = model.bound(x, context, self.importance).mean()  # type: ignore[operator]
        else:
            parts = model.parts(x, context)  # type: ignore[operator]
            kl = parts["kl"].mean(0)
            kl = kl.clamp_min(self.free_bits) if self.free_bits else kl
            bound = parts["reconstruction"].mean() - self.weight(done) * self.total(kl, model, done)
        yield "", bits_per_dim(bound - self.penalty(model), prod(x.shape[1:]))

    def total(self, kl: Tensor, model: nn.Module, done: float) -> Tensor | float:
        """Return the sum of the groups' KL, (groups,), as it is trained."""
        return kl.sum()

    def penalty(self, model: nn.Module) -> Tensor | float:
        """Return what is added to minus the bound, in nats."""
        return 0.0


@dataclass(frozen=True)
class HierarchicalELBO(ELBO):
    """The bound of an `NVAE`, with what its paper needs to train one (Vahdat & Kautz 2020).

    `model.density.alpha` must be a number for each group; `model.density.penalties()` sums of the convolutions' largest
    singular values and of the batch normalisations' largest scales.

    Attributes:
        beta: Weight of KL; 1 is the bound.
        kl_warmup: Share of each cycle over which that weight rises from 0.
        kl_cycles: Cycles of the rise.
        free_bits: Nats of KL in each group that cost nothing, on average over a batch.
        importance: Draws K of the importance-weighted bound that is trained in place of the plain one.
        balancing: While the weight rises, multiply KL_l of the group l by γ_l ∝ KL_l/α_l, of mean 1 and without
            gradient, so that no group dies early.
        regularisation: Weight of the convolutions' spectral norms and of the batch normalisations' scales (the paper's
            is 0.01 to 0.1), in nats.
    """

    kl_warmup: float = 0.3
    balancing: bool = True
    regularisation: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.regularisation < math.inf:
            raise UsageError(f"expected regularisation >= 0; {self.regularisation} came")

    def total(self, kl: Tensor, model: nn.Module, done: float) -> Tensor | float:
        """Return the sum of the groups' KL, balanced while its weight rises."""
        if not self.balancing or self.weight(done) >= self.beta:
            return kl.sum()
        gamma = (kl.detach() + ALIVE) / model.get_submodule("density").get_buffer("alpha")
        return (gamma / gamma.mean() * kl).sum()

    def penalty(self, model: nn.Module) -> Tensor | float:
        """Return the weighted sum of spectral norms and scales."""
        if not self.regularisation:
            return 0.0
        penalties = model.get_submodule("density").penalties()  # type: ignore[operator]
        return self.regularisation * sum(penalties.values())


def _cross_entropy(logits: Tensor, classes: Tensor | None) -> Tensor:
    """Return the mean cross-entropy, in bits."""
    return F.cross_entropy(logits, classes) / math.log(2)  # type: ignore[arg-type]

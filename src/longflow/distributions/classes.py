"""Priors with a normal for each class: Glow's, with its auxiliary classifier, and that of clusters."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from longflow.distributions.bases import HALF_LOG_2PI
from longflow.distributions.distribution import Case, Noise, Temperature, total
from longflow.errors import UsageError

SPEED = 10.0


class ClassNormal(Noise):
    """p(z | y) = N(z; μ_y, diag σ_y²) for a class y of K; without a class, the mixture 1/K Σ_y p(z | y).

    The features at `where` (an array (C, ...) of places in the flattened event) have a mean and a deviation for each
    class and channel, the same over space; all other numbers are standard normal. With the channels of the last scale
    this is Glow's (Kingma & Dhariwal 2018, code: `ycond`). Means and log-deviations start at 0. The context is a class
    for each row, whole numbers of shape (B,), or None.

    `classify` is the auxiliary classifier: a linear map, from 0, of the mean over space of z at `where`.
    """

    context_shape = ()
    where: Tensor

    def __init__(self, shape: tuple[int, ...], where: Tensor, classes: int) -> None:
        super().__init__(shape)
        if classes < 2:
            raise UsageError(f"ClassNormal expects at least 2 classes; {classes} came")
        self.classes = classes
        self.register_buffer("where", where.reshape(len(where), -1))
        self.raw_loc = nn.Parameter(torch.zeros(classes, len(where), 1))
        self.log_scale = nn.Parameter(torch.zeros(classes, len(where), 1))
        self.head = nn.Linear(len(where), classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def loc(self) -> Tensor:
        """The means, (K, C, 1): learned ten times as fast as a weight, which Adam at 1e-3 would let lag behind."""
        return SPEED * self.raw_loc

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check_events(x, context)
        if context is None:
            return torch.logsumexp(self.log_joint(x), 1)
        own = context.long()
        return self._log_prob(x, self.loc[own][:, None], self.log_scale[own][:, None])[:, 0]

    def log_joint(self, x: Tensor) -> Tensor:
        """Return log p(x | y) + log 1/K for every class y, of shape (B, K)."""
        return self._log_prob(x, self.loc, self.log_scale) - math.log(self.classes)

    def classify(self, z: Tensor) -> Tensor:
        """Return the auxiliary classifier's logits, of shape (B, K)."""
        return self.head(self._chosen(z).mean(2))

    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        y = torch.randint(self.classes, (n,), device=self.anchor.device) if context is None else context.long()
        z = (temperature * self.normal(n)).flatten(1)
        moved = self._chosen(z) * self.log_scale[y].exp() + self.loc[y]
        return self._put(z, moved)

    def check_context(self, rows: int, context: Tensor | None) -> None:
        check_classes(self.classes, rows, context)

    def likeliest(self, z: Tensor) -> Tensor:
        return self.log_joint(z).argmax(1)

    def normal_moments(self, context: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
        if context is None:
            return None
        own = context.long()
        zeros = self.anchor.new_zeros(len(own), self.dims)
        loc, log_scale = (part[own].expand(-1, -1, self.where.shape[1]) for part in (self.loc, self.log_scale))
        return self._put(zeros, loc), self._put(zeros, log_scale)

    def standardised(self, z: Tensor) -> Tensor:
        y = self.likeliest(z)
        own = (self._chosen(z) - self.loc[y]) * (-self.log_scale[y]).exp()
        return self._put(z.flatten(1), own)

    def _log_prob(self, x: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
        """Return log p(x | y) for means and log-deviations (..., K, C, 1), of shape (B, K)."""
        standard = (self._chosen(x).unsqueeze(1) - loc) * (-log_scale).exp()
        own = (-0.5 * standard.square() - log_scale).flatten(2).sum(2)
        rest = x.flatten(1).index_fill(1, self.where.flatten(), 0.0)
        return own + total(-0.5 * rest.square())[:, None] - self.dims * HALF_LOG_2PI

    def _put(self, flat: Tensor, own: Tensor) -> Tensor:
        """Return flat events, (B, D), in their shape with the features at `where` replaced."""
        return flat.index_copy(1, self.where.flatten(), own.flatten(1)).unflatten(1, self.shape)

    def _chosen(self, z: Tensor) -> Tensor:
        """Return the features at `where`, (B, C, places)."""
        return z.flatten(1)[:, self.where]

    @classmethod
    def examples(cls) -> Iterator[Case]:
        yield Case(cls((2,), torch.tensor([1]), 3))
        yield Case(cls((2,), torch.tensor([1]), 3), context=torch.tensor(2))
        yield Case(cls((1,), torch.tensor([[0]]), 2), context=torch.tensor(1))


class ClusterNormal(Noise):
    """p(z | y) = N(z; μ_y, I) for a cluster y of K; without one, the mixture 1/K Σ_y p(z | y).

    All numbers of z have a mean for each cluster, learned from 0; deviations are 1, so that a cluster is as wide as
    any other. The context is a cluster for each row, whole numbers of shape (B,), or None.
    """

    context_shape = ()

    def __init__(self, shape: tuple[int, ...], clusters: int) -> None:
        super().__init__(shape)
        if clusters < 2:
            raise UsageError(f"expected at least 2 clusters; {clusters} came")
        self.classes = clusters
        self.loc = nn.Parameter(torch.zeros(clusters, *shape))

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check_events(x, context)
        if context is None:
            return torch.logsumexp(self.elementwise(x).sum(2), 1) - math.log(self.classes)
        return total(-0.5 * (x - self.loc[context.long()]).square()) - self.dims * HALF_LOG_2PI

    def elementwise(self, z: Tensor) -> Tensor:
        """Return log p(z_j | y) of each number j and each cluster y, (B, K, D)."""
        return -0.5 * (z.unsqueeze(1) - self.loc).square().flatten(2) - HALF_LOG_2PI

    def normal_moments(self, context: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
        return None if context is None else (self.loc[context.long()], self.anchor)

    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        y = torch.randint(self.classes, (n,), device=self.anchor.device) if context is None else context.long()
        return self.loc[y] + temperature * self.normal(n)

    def check_context(self, rows: int, context: Tensor | None) -> None:
        check_classes(self.classes, rows, context)

    def likeliest(self, z: Tensor) -> Tensor:
        return self.elementwise(z).sum(2).argmax(1)

    def standardised(self, z: Tensor) -> Tensor:
        return z - self.loc[self.likeliest(z)]

    @classmethod
    def examples(cls) -> Iterator[Case]:
        yield Case(cls((2,), 3))
        yield Case(cls((2,), 3), context=torch.tensor(2))


def check_classes(classes: int, rows: int, context: Tensor | None) -> None:
    """Raise UsageError unless a context is None or a class for each row, whole numbers 0 to classes - 1."""
    if context is None:
        return
    if not isinstance(context, Tensor):
        raise UsageError(f"expected a context of {rows} classes, a tensor of shape ({rows},); {context!r} came")
    if tuple(context.shape) != (rows,) or context.is_floating_point():
        came = f"{tuple(context.shape)} of {context.dtype}"
        raise UsageError(f"expected a context of {rows} classes, whole numbers of shape ({rows},); {came} came")
    # Not where a graph is traced: its values are not known there.
    if not torch.compiler.is_compiling() and bool(((context < 0) | (context >= classes)).any()):
        raise UsageError(f"expected classes 0 to {classes - 1}; {int(context.min())} to {int(context.max())} came")

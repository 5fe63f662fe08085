"""A bijection and a base density make a density; dequantisation makes it one of discrete data."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from torch import Tensor

from longflow.bijections import Affine, Bijection, Chain, Coupling, Learned, Scale, Shift, Standardise
from longflow.distributions.bases import StandardLogistic, StandardNormal
from longflow.distributions.classes import ClassNormal
from longflow.distributions.distribution import Case, Distribution, Likelihood, Noise, Temperature
from longflow.errors import UsageError
from longflow.nets import MLP
from longflow.values import values_only


class Flow(Distribution):
    """log p(x) = log p_base(f(x)) + log|det ∂f/∂x|, f the bijection from data x to latent z.

    Of the shape of its base, in the units of x. The context goes to the bijection where `context_shape` is given, and
    else to the base, which may be one of classes.
    """

    def __init__(self, bijection: Bijection, base: Noise, context_shape: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.bijection = bijection
        self.base = base
        self.shape = base.shape
        if context_shape is not None and base.context_shape is not None:
            raise UsageError("a flow expects a context for its bijection or for its base, not for both")
        self.bijection_context = context_shape
        self.context_shape = base.context_shape if context_shape is None else context_shape
        self.predicts = base.classes
        self.likelihood: Likelihood = "estimate" if bijection.estimates else "exact"

    @property
    def density(self) -> "Flow":
        """The density of continuous data inside: itself."""
        return self

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check_events(x, context)
        ours, bases = self._contexts(context)
        z, log_det = self.bijection(x, ours)
        return self.base.log_prob(z, bases) + log_det

    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        self.check_draw(n, context, temperature)
        ours, bases = self._contexts(context)
        with self._cheaply():
            return self.bijection.inverse(self.base.sample(n, bases, temperature), ours)[0]

    def sample_and_log_prob(
        self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0
    ) -> tuple[Tensor, Tensor]:
        self.check_draw(n, context, temperature)
        ours, bases = self._contexts(context)
        z = self.base.sample(n, bases, temperature)
        x, log_det = self.bijection.inverse(z, ours)
        return x, self.base.log_prob(z, bases) - log_det

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data x to latent z, both of shape (B, *shape)."""
        self.check_events(x, context)
        with self._cheaply():
            return self.bijection(x, self._contexts(context)[0])[0]

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Map latent z to data x, both of shape (B, *shape)."""
        self.check_events(z, context)
        with self._cheaply():
            return self.bijection.inverse(z, self._contexts(context)[0])[0]

    def preprocess(self, first: Bijection) -> None:
        """Put a bijection before all others, in place; the rest goes on seeing what that one returns."""
        self.bijection = Chain(first, self.bijection)

    def predictions(self, z: Tensor) -> dict[str, Tensor]:
        """Return classes of latents z, (B,), by each way that there is: none, for a model that knows no classes."""
        if not self.base.classes:
            return {}
        base = cast(ClassNormal, self.base)
        return {"bayes": base.likeliest(z), "classifier": base.classify(z).argmax(1)}

    def joint(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p(x | class), (B,), and the auxiliary classifier's logits, (B, K), for a base of classes."""
        self.check_events(x, classes)
        z, log_det = self.bijection(x)
        return self.base.log_prob(z, classes) + log_det, cast(ClassNormal, self.base).classify(z)

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of p(y | x), (B, K), for a model with a classifier beside the density (`Hybrid`)."""
        raise UsageError("this flow has no classifier beside the density: a weight of 0 leaves nothing to train")

    def scale_map(self) -> Tensor:
        """Return the scale that finishes each number of a latent, whole numbers of `shape`: 0 is the finest."""
        places = torch.arange(self.dims)
        found = torch.empty_like(places)
        for k, part in enumerate(self.bijection.scales(places.reshape(1, *self.shape))):
            found[part.flatten()] = k
        return found.reshape(self.shape).to(next(self.parameters(), places).device)

    @property
    def scale_count(self) -> int:
        """The number of scales of a latent."""
        return int(self.scale_map().max()) + 1

    def _cheaply(self) -> AbstractContextManager[None]:
        """Return what spares the cost of log-determinants that are not asked for, where they have one."""
        return nullcontext() if self.bijection.exact else values_only()

    def check_context(self, rows: int, context: Tensor | None) -> None:
        if self.bijection_context is None:
            self.base.check_context(rows, context)
        else:
            super().check_context(rows, context)

    def _contexts(self, context: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        return (None, context) if self.bijection_context is None else (context, None)

    @classmethod
    def examples(cls) -> Iterator[Case]:
        coupling = Coupling(Affine(), MLP(1, 2, hidden=8, depth=1))
        yield Case(cls(Chain(coupling, Learned(Scale(), (2,))), StandardNormal((2,))))
        yield Case(cls(Coupling(Shift(), MLP(1, 1, hidden=8, depth=1)), StandardLogistic((2,))), box=(-35, 35))


class Dequantised(Distribution):
    """The distribution of data in levels 0..L-1 under a density of the whole line, by uniform dequantisation.

        P(x) = ∫ p(x + u) du over u in [0, 1)^D  ≥  exp E log p(x + u)   (Theis, van den Oord & Bethge 2016, eq. 4)

    `log_prob` is log p(x + u) with one draw of u from torch's generator: random, and on average a lower bound of
    log P(x), in nats. `bound` tightens it by importance samples. Levels may be of any number type.
    `sample` returns whole levels; the density's mass outside [0, L) goes to the nearest level.
    """

    dequantiser = "uniform"

    def __init__(self, density: Flow, levels: int) -> None:
        super().__init__()
        if levels < 2:
            raise UsageError(f"dequantisation expects at least 2 levels; {levels} came")
        self.density = density
        self.levels = levels
        self.likelihood: Likelihood = "lower bound" if density.likelihood == "exact" else "estimate"
        self.shape = density.shape
        self.context_shape = density.context_shape

    @property
    def base(self) -> Noise:
        """The base density of the flow."""
        return self.density.base

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.density.log_prob(self._within_bins(x), context)

    def joint(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p(x + u | class), (B,), and the auxiliary classifier's logits, (B, K), for a base of classes."""
        return self.density.joint(self._within_bins(x), classes)

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of a classifier beside the density, (B, K); see `Hybrid`."""
        return self.density.logits(self._within_bins(x))

    def scale_map(self) -> Tensor:
        """Return the scale that finishes each number of a latent; see `Flow.scale_map`."""
        return self.density.scale_map()

    @property
    def scale_count(self) -> int:
        """The number of scales of a latent."""
        return self.density.scale_count

    def bound(self, x: Tensor, context: Tensor | None = None, samples: int = 1) -> Tensor:
        """Return log (1/K) Σ_k p(x + u_k), of shape (B,): a bound that tightens with K (Burda et al. 2016)."""
        if samples < 1:
            raise UsageError(f"expected at least 1 importance sample; {samples} came")
        draws = torch.stack([self.log_prob(x, context) for _ in range(samples)])
        return torch.logsumexp(draws, 0) - math.log(samples)

    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        return self._levels_of(self.density.sample(n, context, temperature))

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map levels x, taken at the middle of their bins, to latent z."""
        return self.density.encode(x.to(self.dtype(x)) + 0.5, context)

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Map latent z to levels."""
        return self._levels_of(self.density.decode(z, context))

    def _within_bins(self, x: Tensor) -> Tensor:
        y = x.to(self.dtype(x))
        return y + torch.rand_like(y)

    def _levels_of(self, y: Tensor) -> Tensor:
        return y.floor().clamp(0, self.levels - 1)

    @classmethod
    def examples(cls) -> Iterator[Case]:
        flow = Flow(Chain(Standardise(0.0, 4.0), Learned(Affine(), (2,))), StandardNormal((2,)))
        yield Case(cls(flow, 4), box=(0, 4))

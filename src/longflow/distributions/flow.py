"""A bijection and a base density make a density."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn

from longflow.bijections import (
    Affine,
    At,
    Bijection,
    Chain,
    Coupling,
    Embedded,
    Leading,
    Learned,
    Scale,
    Shift,
)
from longflow.distributions.bases import HALF_LOG_2PI, StandardLogistic, StandardNormal
from longflow.distributions.classes import ClassNormal
from longflow.distributions.distribution import Case, Likelihood, Noise, Temperature, total
from longflow.distributions.latent import Inside, LatentModel, averaged
from longflow.errors import UsageError
from longflow.nets import MLP
from longflow.values import values_only


class Flow(LatentModel):
    """log p(x) = log p_base(f(x)) + log|det ∂f/∂x|, f the bijection from data x to latent z.

    Of the shape of its base, in the units of x. The context goes to the bijection where `context_shape` is given, and
    else to the base, which may be one of classes.

    With `padding` p, events have p features less than the base: the bijection acts on (x, ε), ε of p features of
    standard normal noise, and log p(x, ε) - log N(ε) is on average a lower bound of log p(x) (an augmented flow: Huang,
    Dinh & Courville 2020), which `bound` tightens by K draws. `encode` takes ε = 0 (the injective padding of Jacobsen
    et al. 2018), `decode` and `sample` drop it. Latents have the shape of the base.
    """

    def __init__(
        self, bijection: Bijection, base: Noise, context_shape: tuple[int, ...] | None = None, *, padding: int = 0
    ) -> None:
        super().__init__()
        self.bijection = bijection
        self.base = base
        self.padding = padding
        self.shape = (base.shape[0] - padding, *base.shape[1:])
        if context_shape is not None and base.context_shape is not None:
            raise UsageError("a flow expects a context for its bijection or for its base, not for both")
        self.bijection_context = context_shape
        self.context_shape = base.context_shape if context_shape is None else context_shape
        self.predicts = base.classes

    @property
    def likelihood(self) -> Likelihood:  # type: ignore[override]
        return "estimate" if self.bijection.estimates else "lower bound" if self.padding else "exact"

    @property
    def density(self) -> "Flow":  # type: ignore[override]
        return self

    @property
    def estimates(self) -> bool:
        return self.bijection.estimates

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check_events(x, context)
        ours, bases = self._contexts(context)
        z, gain = self._latent(x, ours)
        return self.base.log_prob(z, bases) + gain

    def bound(self, x: Tensor, context: Tensor | None = None, samples: int = 1) -> Tensor:
        return averaged(self, x, context, samples if self.padding else 1)

    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        self.check_draw(n, context, temperature)
        ours, bases = self._contexts(context)
        with self._cheaply():
            return self._cut(self.bijection.inverse(self.base.sample(n, bases, temperature), ours)[0])

    def sample_and_log_prob(
        self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0
    ) -> tuple[Tensor, Tensor]:
        self.check_draw(n, context, temperature)
        ours, bases = self._contexts(context)
        z = self.base.sample(n, bases, temperature)
        lifted, log_det = self.bijection.inverse(z, ours)
        cost = self._cost(lifted[:, self.shape[0] :])
        return self._cut(lifted), self.base.log_prob(z, bases) - log_det - cost

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data x, (B, *shape), to latent z, (B, *latent_shape)."""
        self.check_events(x, context)
        with self._cheaply():
            return self.bijection(self.lift(x), self._contexts(context)[0])[0]

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Map latent z, (B, *latent_shape), to data x, (B, *shape)."""
        self.check_events(z, context, self.latent_shape)
        with self._cheaply():
            return self._cut(self.bijection.inverse(z, self._contexts(context)[0])[0])

    def lift(self, x: Tensor) -> Tensor:
        """Return events with noughts for the padding, as `encode` sees them, (B, *latent_shape)."""
        return torch.cat((x, x.new_zeros(len(x), self.padding, *x.shape[2:])), 1) if self.padding else x

    def _latent(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the latent of x, with noise for the padding, and log|det| less the log-density of that noise."""
        if not self.padding:
            return self.bijection(x, context)
        noise = x.new_empty(len(x), self.padding, *x.shape[2:]).normal_()
        z, log_det = self.bijection(torch.cat((x, noise), 1), context)
        return z, log_det - self._cost(noise)

    def _cost(self, noise: Tensor) -> Tensor:
        return total(-0.5 * noise.square() - HALF_LOG_2PI)

    def _cut(self, lifted: Tensor) -> Tensor:
        return lifted[:, : self.shape[0]]

    def preprocess(self, first: Bijection) -> None:
        """Put a bijection of the data before all others, in place; the rest goes on seeing what that one returns."""
        self.bijection = Chain(Leading(self.shape[0], first) if self.padding else first, self.bijection)

    def embed(self, network: nn.Module, context_shape: tuple[int, ...]) -> None:
        """Put a network before the context, in place: contexts are then (B, *context_shape), which it maps to features.

        It is trained with the flow. Raises UsageError unless two noughts become two rows of what the bijection sees.
        """
        if self.bijection_context is None:
            raise UsageError("embed expects a flow with a context, such as longflow.build(..., context=8) makes")
        like = next(network.parameters(), torch.zeros(()))
        training = network.training
        with torch.no_grad():
            came = tuple(network.eval()(like.new_zeros(2, *context_shape)).shape[1:])
        network.train(training)
        if came != self.bijection_context:
            raise UsageError(f"the flow expects a network to contexts of shape {self.bijection_context}; {came} came")
        self.bijection = Embedded(network, self.bijection)
        self.bijection_context = self.context_shape = tuple(context_shape)

    def at(self, context: Tensor) -> "Flow":
        """Return the density of x under one context, of `context_shape`: a flow without one, of the same parameters."""
        if self.bijection_context is None:
            raise UsageError("expected a flow with a context; this one takes none")
        self.check_context(1, context[None])
        return Flow(At(self.bijection, context[None]), self.base, padding=self.padding).train(self.training)

    def flows(self, x: Tensor, context: Tensor | None = None) -> dict[str, Inside]:
        return {"": (self, x, context)}

    def predictions(self, z: Tensor) -> dict[str, Tensor]:
        if not self.base.classes:
            return {}
        base = cast(ClassNormal, self.base)
        return {"bayes": base.likeliest(z), "classifier": base.classify(z).argmax(1)}

    def joint(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p(x | class), (B,), and the auxiliary classifier's logits, (B, K), for a base of classes."""
        self.check_events(x, classes)
        z, gain = self._latent(x)
        return self.base.log_prob(z, classes) + gain, cast(ClassNormal, self.base).classify(z)

    def scales(self, z: Tensor) -> tuple[Tensor, ...]:
        return self.bijection.scales(z)

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

"""The contract of a distribution, and the checks made at its doors."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import torch
from torch import Tensor

from longflow.distributions.event_model import EventModel
from longflow.distributions.torch_distribution import TorchDistribution, torch_distribution
from longflow.errors import UsageError

Temperature = float | Tensor
"""One number, or one for each number of an event, of the event's shape."""

Likelihood = Literal["exact", "lower bound", "estimate", "none"]


class Distribution(EventModel, ABC):
    """A probability distribution of events of one shape.

    - `log_prob(x, context)` takes (B, *shape) and returns (B,), in nats, in the units of x.
    - `sample(n, context, temperature)` returns (n, *shape). There is one context row per sample: n is never
      crossed with the contexts. `temperature` multiplies the deviation of the noise from its centre: 1 is the
      model, 0 its centre.
    - `likelihood` says what `log_prob` is: exact, a lower bound, or an estimate.

    Modules called as functions score: `model(x, context)` is `log_prob`, so that distributed wrappers work.
    """

    context_shape: tuple[int, ...] | None = None
    likelihood: Likelihood = "exact"
    dequantiser: str | None = None
    levels: int | None = None
    """The number of levels 0..L-1 where events are such; None for a density of continuous data."""
    reparametrised: bool = True
    """Whether a sample is differentiable in every parameter, where it is in any."""
    classes: int = 0
    """Classes that its context tells apart; 0 for none."""

    @abstractmethod
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the log-density of each row of x, of shape (B,), in nats."""

    @abstractmethod
    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        """Draw n events, of shape (n, *shape); the context is one row for each, the classes for a model of classes."""

    @classmethod
    @abstractmethod
    def examples(cls) -> "Iterator[Case]":
        """Yield small instances: the tests walk them."""

    def sample_and_log_prob(
        self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Draw n events; return them and their log-density under the model itself (at temperature 1)."""
        x = self.sample(n, context, temperature)
        return x, self.log_prob(x, context)

    def stratified(self, n: int, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return draws that are differentiable in all parameters, (S, n, *shape), log-densities and shares (S, n).

        The expectation of h for row i is the mean of Σ_s share[s, i] h(draw[s, i]). One stratum of share 1, but for
        mixtures, whose components are strata: no draw of a component has a gradient in its weight.
        """
        x, log_prob = self.sample_and_log_prob(n, context)
        return x[None], log_prob[None], torch.ones_like(log_prob)[None]

    def bound(self, x: Tensor, context: Tensor | None = None, samples: int = 1) -> Tensor:
        """Return the best estimate of the log-likelihood from K draws, of shape (B,): `log_prob` where it is exact."""
        return self.log_prob(x, context)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return `log_prob(x, context)`."""
        return self.log_prob(x, context)

    def distribution(self, context: Tensor | None = None) -> TorchDistribution:
        """Return this as one of `torch.distributions`, under contexts (*batch_shape, *context_shape).

        The parameters are shared. Raises UsageError where the context is not the model's.
        """
        return torch_distribution(self, context)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of a latent: that of an event, but for padding."""
        return self.shape

    def check_events(self, x: Tensor, context: Tensor | None, shape: tuple[int, ...] | None = None) -> None:
        """Raise UsageError unless x, of the event's shape or another, and the context can be taken."""
        self.check_rows(x, self.shape if shape is None else shape)
        self.check_context(len(x), context)

    def check_draw(self, n: int, context: Tensor | None, temperature: Temperature) -> None:
        """Raise UsageError unless n, the context and the temperature can be sampled with."""
        if n < 0:
            raise UsageError(f"expected a number of samples >= 0; {n} came")
        if isinstance(temperature, Tensor):
            if tuple(temperature.shape) != self.latent_shape or not bool(
                ((temperature >= 0) & temperature.isfinite()).all()
            ):
                raise UsageError(f"expected temperatures >= 0 of shape {self.latent_shape}")
        elif not (temperature >= 0 and isfinite(temperature)):
            raise UsageError(f"expected a temperature >= 0; {temperature} came")
        self.check_context(n, context)

    def check_context(self, rows: int, context: Tensor | None) -> None:
        """Raise UsageError unless there is one context row of the right shape for each event."""
        wanted = None if self.context_shape is None else (rows, *self.context_shape)
        came = None if context is None else tuple(context.shape)
        if wanted != came:
            takes = "no context" if wanted is None else f"a context of shape {wanted}"
            raise UsageError(f"expected {takes}; {'none' if came is None else f'one of shape {came}'} came")


@dataclass(frozen=True, eq=False)
class Case:
    """A small distribution to test, with the box outside which it has (next to) no mass."""

    distribution: Distribution
    box: tuple[float, float] = (-12.0, 12.0)
    context: Tensor | None = None
    """One context row, for a distribution that can take one."""


class Noise(Distribution):
    """A base density: it knows its dtype and device, which its samples have."""

    anchor: Tensor
    deviation: float = 1.0
    """The standard deviation of each number at the start of training."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.register_buffer("anchor", torch.zeros(()), persistent=False)

    def extra_repr(self) -> str:
        return f"{self.shape}"

    @abstractmethod
    def standardised(self, z: Tensor) -> Tensor:
        """Return z, (B, *shape), in standard deviations from its mean: those of the likeliest class or component."""

    def normal_scores(self, z: Tensor) -> Tensor:
        """Return Φ⁻¹(F(z)), (B, *shape), F the distribution function in the likeliest class: N(0, 1) for draws z."""
        return self.standardised(z)

    def normal_moments(self, context: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
        """Return mean and log-deviation of each number, to broadcast to (B, *shape), where the noise is normal."""
        return None

    def likeliest(self, z: Tensor) -> Tensor | None:
        """Return the likeliest class of each row, (B,); None where there are no classes."""
        return None

    def uniform(self, n: int) -> Tensor:
        """Draw from U(0, 1), of shape (n, *shape); a zero becomes half of the least other draw, not an outlier."""
        least = torch.finfo(self.anchor.dtype).eps / 4
        return torch.rand(n, *self.shape, dtype=self.anchor.dtype, device=self.anchor.device).clamp_min(least)

    def normal(self, n: int) -> Tensor:
        """Draw from N(0, 1), of shape (n, *shape)."""
        return torch.randn(n, *self.shape, dtype=self.anchor.dtype, device=self.anchor.device)


def total(elementwise: Tensor) -> Tensor:
    """Sum over an event: (B, ...) to (B,)."""
    return elementwise.flatten(1).sum(1)

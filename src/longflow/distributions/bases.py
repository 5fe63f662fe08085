"""Base densities: what data become."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longflow.distributions.distribution import Case, Noise, Temperature, total
from longflow.errors import UsageError

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class StandardNormal(Noise):
    """N(0, I): log p(z) = -½ Σ (z² + log 2π)."""

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check_events(x, context)
        return total(-0.5 * x.square()) - self.dims * HALF_LOG_2PI

    def standardised(self, z: Tensor) -> Tensor:
        return z

    def normal_moments(self, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.anchor, self.anchor

    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        return temperature * self.normal(n)

    @classmethod
    def examples(cls) -> Iterator[Case]:
        yield Case(cls((1,)))
        yield Case(cls((2,)))


class StandardLogistic(Noise):
    """Independent logistic: log p(z) = -Σ (softplus(z) + softplus(-z)) (NICE, eq. 12). Standard deviation π/√3."""

    deviation = math.pi / math.sqrt(3)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check_events(x, context)
        return -total(x + 2 * F.softplus(-x))

    def standardised(self, z: Tensor) -> Tensor:
        return z / self.deviation

    def normal_scores(self, z: Tensor) -> Tensor:
        below = torch.special.ndtri((-z.abs()).sigmoid().clamp_min(torch.finfo(z.dtype).tiny))
        return torch.where(z > 0, -below, below)

    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        return temperature * torch.logit(self.uniform(n))

    @classmethod
    def examples(cls) -> Iterator[Case]:
        yield Case(cls((1,)), box=(-45, 45))
        yield Case(cls((2,)), box=(-35, 35))


class Uniform(Noise):
    """Independent U(low, high). Outside the box the log-density is -inf.

    A temperature below 1 shrinks the draws about the centre; above 1 they would leave the support: refused.
    """

    def __init__(self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> None:
        super().__init__(shape)
        if not low < high:
            raise UsageError(f"Uniform expects low < high; {low} and {high} came")
        self.low, self.high = low, high

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check_events(x, context)
        inside = ((x >= self.low) & (x <= self.high)).flatten(1).all(1)
        density = x.new_full((len(x),), -self.dims * math.log(self.high - self.low))
        return torch.where(inside, density, -math.inf)

    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        if bool(torch.as_tensor(temperature).gt(1).any()):
            raise UsageError(f"a uniform base expects a temperature of at most 1; {temperature} came")
        centre, width = self._centre_and_width()
        return centre + temperature * width * (self.uniform(n) - 0.5)

    def standardised(self, z: Tensor) -> Tensor:
        centre, width = self._centre_and_width()
        return (z - centre) * math.sqrt(12) / width

    def normal_scores(self, z: Tensor) -> Tensor:
        least = torch.finfo(z.dtype).eps / 4
        return torch.special.ndtri(((z - self.low) / (self.high - self.low)).clamp(least, 1 - 2 * least))

    def _centre_and_width(self) -> tuple[float, float]:
        return 0.5 * (self.low + self.high), self.high - self.low

    @classmethod
    def examples(cls) -> Iterator[Case]:
        yield Case(cls((2,), -1.0, 2.0), box=(-1, 2))


class DiagonalNormal(Noise):
    """N(μ, diag σ²) with learned μ and log σ, of the event's shape, starting at the standard normal."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self.loc = nn.Parameter(torch.zeros(shape))
        self.log_scale = nn.Parameter(torch.zeros(shape))

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check_events(x, context)
        return total(-0.5 * self.standardised(x).square() - self.log_scale) - self.dims * HALF_LOG_2PI

    def standardised(self, z: Tensor) -> Tensor:
        return (z - self.loc) * (-self.log_scale).exp()

    def normal_moments(self, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.loc, self.log_scale

    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        return self.loc + temperature * self.log_scale.exp() * self.normal(n)

    @classmethod
    def examples(cls) -> Iterator[Case]:
        yield Case(cls((2,)))


class GaussianMixture(Noise):
    """Σ_k w_k N(μ_k, diag σ_k²) with learned weights, means and log-scales.

    The means start at draws of N(0, I). The temperature multiplies the σ_k; weights and means stay.
    """

    reparametrised = False

    def __init__(self, shape: tuple[int, ...], components: int = 8) -> None:
        super().__init__(shape)
        if components < 1:
            raise UsageError(f"GaussianMixture expects at least 1 component; {components} came")
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, *shape))
        self.log_scale = nn.Parameter(torch.zeros(components, *shape))

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check_events(x, context)
        return torch.logsumexp(self._log_joint(self._by_component(x)), 1) - self.dims * HALF_LOG_2PI

    def standardised(self, z: Tensor) -> Tensor:
        by_component = self._by_component(z)
        return by_component[torch.arange(len(z)), self._log_joint(by_component).argmax(1)]

    def _by_component(self, x: Tensor) -> Tensor:
        """Return x in standard deviations from the mean of each component, (B, K, *shape)."""
        return (x.unsqueeze(1) - self.loc) * (-self.log_scale).exp()

    def _log_joint(self, by_component: Tensor) -> Tensor:
        """Return log w_k + log p(x | k) without its constant, (B, K)."""
        return (-0.5 * by_component.square() - self.log_scale).flatten(2).sum(2) + self.logits.log_softmax(0)

    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        k = torch.multinomial(self.logits.softmax(0), n, replacement=True) if n else self.logits.new_zeros(0).long()
        return self.loc[k] + temperature * self.log_scale[k].exp() * self.normal(n)

    @classmethod
    def examples(cls) -> Iterator[Case]:
        yield Case(cls((2,), 3))
        yield Case(cls((1,), 2))

"""Distributions whose parameters are their context: what a network tells of data, or of a latent."""

import math
from abc import abstractmethod
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longflow.distributions.bases import HALF_LOG_2PI
from longflow.distributions.distribution import Case, Distribution, Noise, Temperature, total
from longflow.errors import UsageError

NEAR = 0.1
"""A learned deviation is at its floor where it exceeds it by less than this share of it."""


class Parametric(Distribution):
    """A distribution of events (C, ...) whose context holds `parameters_per_feature` numbers a feature.

    They come parameter by parameter along axis 1: a context has the shape (B, parameters_per_feature · C, ...), but
    where `context_shape` says otherwise. Samples are differentiable in the context where the distribution is of
    continuous numbers.
    """

    parameters_per_feature: int

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    @property
    def context_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.parameters_per_feature * self.shape[0], *self.shape[1:])

    @abstractmethod
    def mean(self, context: Tensor) -> Tensor:
        """Return the mean of each row's distribution, (B, *shape)."""

    def moments(self, context: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return means and log-deviations, to broadcast to (B, *shape), where the distribution is normal; else None."""
        return None

    def divergence(self, context: Tensor, prior: Distribution, prior_context: Tensor | None = None) -> Tensor | None:
        """Return KL(this ‖ prior) for each number of an event, (B, D), in nats; None where there is no closed form."""
        return None

    def at_floor(self, context: Tensor) -> Tensor:
        """Return the share of each row's deviations that are at their floor, (B,); nothing where there is none."""
        return context.new_zeros(len(context))

    def dtype(self, x: Tensor) -> torch.dtype:
        return x.dtype if x.is_floating_point() else torch.get_default_dtype()

    def extra_repr(self) -> str:
        return f"{self.shape}"


def given(context: Tensor | None) -> Tensor:
    """Return the parameters of a distribution, which has none of its own."""
    if context is None:
        raise UsageError("expected the parameters of the distribution as its context; none came")
    return context


def divergence_of_normals(own: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """Return KL(own ‖ other) for each number, both normals given as means and log-deviations, in nats."""
    ratio = own[1] - other[1]
    standard = (own[0] - other[0]) * (-other[1]).exp()
    return 0.5 * (standard.square() + (2 * ratio).exp() - 1) - ratio


class Gaussian(Parametric):
    """Independent normal numbers; `moments` says how the context gives means and log-deviations."""

    @abstractmethod
    def moments(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return means (B, *shape) and log-deviations, of a shape that broadcasts to it."""

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check_events(x, context)
        return total(self.elementwise(x, given(context)))

    def elementwise(self, x: Tensor, context: Tensor) -> Tensor:
        """Return the log-density of each number of an event, (B, *shape)."""
        loc, log_scale = self.moments(context)
        return -0.5 * ((x - loc) * (-log_scale).exp()).square() - log_scale - HALF_LOG_2PI

    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        self.check_draw(n, context, temperature)
        loc, log_scale = self.moments(given(context))
        return loc + temperature * log_scale.exp() * torch.randn_like(loc)

    def mean(self, context: Tensor) -> Tensor:
        return self.moments(context)[0]

    def divergence(self, context: Tensor, prior: Distribution, prior_context: Tensor | None = None) -> Tensor | None:
        moments = prior.normal_moments(prior_context) if isinstance(prior, Noise) else None
        if moments is None:
            return None
        own = self.moments(context)
        return divergence_of_normals(own, moments).expand_as(own[0]).flatten(1)


class Normal(Gaussian):
    """N(μ, diag σ²) with μ and log σ from the context; with a floor, σ is so much more than what the context says."""

    parameters_per_feature = 2

    def __init__(self, shape: tuple[int, ...], *, floor: float = 0.0) -> None:
        super().__init__(shape)
        self.floor = check_floor(floor)

    def moments(self, context: Tensor) -> tuple[Tensor, Tensor]:
        loc, log_scale = context.chunk(2, 1)
        return loc, (log_scale.exp() + self.floor).log() if self.floor else log_scale

    def at_floor(self, context: Tensor) -> Tensor:
        above = context.chunk(2, 1)[1].exp()
        return (above < NEAR * self.floor).to(context).flatten(1).mean(1)

    @classmethod
    def examples(cls) -> Iterator[Case]:
        yield Case(cls((2,)), context=torch.tensor([0.3, -0.7, 0.2, -0.4]))
        yield Case(cls((1,), floor=0.5), context=torch.tensor([0.3, -0.7]))


class EqualNormal(Gaussian):
    """N(μ, σ² I) with μ from the context and one σ for all numbers, fixed or (above a floor) learned.

    A learned σ is floor + exp s. Without a floor, the likelihood of continuous data grows without bound as σ falls to 0
    with ever better reconstructions.
    """

    parameters_per_feature = 1

    def __init__(self, shape: tuple[int, ...], scale: float = 1.0, *, floor: float | None = None) -> None:
        super().__init__(shape)
        self.floor = None if floor is None else check_floor(floor)
        if not (math.isfinite(scale) and scale > (floor or 0.0)):
            raise UsageError(f"expected a deviation above {floor or 0.0:g}; {scale} came")
        start = torch.tensor(math.log(scale - (self.floor or 0.0)))
        if self.floor is None:
            self.register_buffer("s", start)
        else:
            self.s = nn.Parameter(start)

    @property
    def log_scale(self) -> Tensor:
        """Log σ, of shape ()."""
        return (self.s.exp() + self.floor).log() if self.floor else self.s

    @property
    def floored(self) -> bool:
        """Whether a learned σ has been driven down to its floor."""
        return bool(self.floor) and bool(self.s.exp() < NEAR * float(self.floor or 0.0))

    def at_floor(self, context: Tensor) -> Tensor:
        return context.new_full((len(context),), float(self.floored))

    def moments(self, context: Tensor) -> tuple[Tensor, Tensor]:
        return context, self.log_scale

    def dtype(self, x: Tensor) -> torch.dtype:
        return self.s.dtype

    @classmethod
    def examples(cls) -> Iterator[Case]:
        yield Case(cls((2,), 0.7), context=torch.tensor([0.3, -0.7]))
        yield Case(cls((1,), 0.7, floor=0.1), context=torch.tensor([0.3]))


class NormalMixture(Parametric):
    """Σ_k w_k N(μ_k, diag σ_k²) with logits of w, μ and log σ from the context, the logits the same in every feature.

    The context has, for each feature, K logits (whose mean over the event counts), K means and K log-deviations.
    A sample is differentiable in means and deviations, not in the weights; `stratified` draws are, in all.
    """

    reparametrised = False

    def __init__(self, shape: tuple[int, ...], components: int) -> None:
        super().__init__(shape)
        if components < 1:
            raise UsageError(f"a mixture expects at least 1 component; {components} came")
        self.components = components
        self.parameters_per_feature = 3 * components

    def _split(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-weights (B, K), means and log-deviations (B, K, *shape)."""
        logits, loc, log_scale = context.unflatten(1, (3 * self.components, self.shape[0])).chunk(3, 1)
        return F.log_softmax(logits.flatten(2).mean(2), 1), loc, log_scale

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check_events(x, context)
        log_weights, loc, log_scale = self._split(given(context))
        standard = (x.unsqueeze(1) - loc) * (-log_scale).exp()
        parts = (-0.5 * standard.square() - log_scale).flatten(2).sum(2)
        return torch.logsumexp(log_weights + parts, 1) - self.dims * HALF_LOG_2PI

    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        self.check_draw(n, context, temperature)
        log_weights, loc, log_scale = self._split(given(context))
        shared = temperature.double().mean().to(log_weights) if isinstance(temperature, Tensor) else temperature
        k = (log_weights + shared * gumbel(log_weights)).argmax(1)
        rows = torch.arange(n, device=k.device)
        return loc[rows, k] + temperature * log_scale[rows, k].exp() * torch.randn_like(loc[rows, k])

    def stratified(self, n: int, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        self.check_draw(n, context, 1.0)
        log_weights, loc, log_scale = self._split(given(context))
        x = (loc + log_scale.exp() * torch.randn_like(loc)).transpose(0, 1)
        log_prob = torch.stack([self.log_prob(one, context) for one in x])
        return x, log_prob, log_weights.exp().T

    def mean(self, context: Tensor) -> Tensor:
        log_weights, loc, _ = self._split(context)
        return (log_weights.exp().reshape(*log_weights.shape, *[1] * len(self.shape)) * loc).sum(1)

    @classmethod
    def examples(cls) -> Iterator[Case]:
        yield Case(
            cls((2,), 2), context=torch.tensor([0.3, 0.1, -0.7, 0.5, 1.0, -1.0, -0.5, 0.7, 0.2, -0.4, 0.1, -0.2])
        )


def gumbel(like: Tensor) -> Tensor:
    """Draw standard Gumbel noise of a tensor's shape: added to log-weights, the largest is a draw by the weights."""
    return -torch.log(-torch.log(torch.rand_like(like).clamp_min(torch.finfo(like.dtype).tiny)))


def check_floor(floor: float) -> float:
    """Raise UsageError unless a floor of deviations is a finite number >= 0."""
    if not (math.isfinite(floor) and floor >= 0):
        raise UsageError(f"expected a floor of deviations >= 0; {floor} came")
    return floor

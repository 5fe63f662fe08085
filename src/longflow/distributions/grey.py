"""Distributions of levels 0..L-1 whose parameters are their context."""

from collections.abc import Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from longflow.distributions.distribution import Case, Temperature, total
from longflow.distributions.parametric import Parametric, given, gumbel
from longflow.errors import UsageError

LEAST_LOG_SCALE = -7.0
"""Of a logistic, in units of half of the range: a hundredth of a bin of 256 levels."""


class OfLevels(Parametric):
    """A distribution of levels, which says so of others: their masses would be numbers without a meaning."""

    levels: int
    whole: ClassVar[bool] = True
    """Whether levels are whole numbers, or any between the first and the last."""

    def check_events(self, x: Tensor, context: Tensor | None, shape: tuple[int, ...] | None = None) -> None:
        super().check_events(x, context, shape)
        right = x.clamp(0, self.levels - 1)
        wrong = x != (right.round() if self.whole else right)
        if bool(wrong.any()):
            kind = "levels, whole numbers" if self.whole else "values"
            raise UsageError(f"expected {kind} 0 to {self.levels - 1}; {float(x[wrong][0]):g} came")


class Bernoulli(OfLevels):
    """Independent numbers 0 or 1, logits from the context: log P(x) = Σ x l - softplus(l)."""

    levels = 2
    parameters_per_feature = 1

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check_events(x, context)
        return cross_entropy(x, given(context))

    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        self.check_draw(n, context, temperature)
        logits = given(context)
        noise = torch.logit(torch.rand_like(logits), eps=torch.finfo(logits.dtype).tiny)
        return (logits + temperature * noise > 0).to(logits)

    def mean(self, context: Tensor) -> Tensor:
        return torch.sigmoid(context)

    @classmethod
    def examples(cls) -> Iterator[Case]:
        yield Case(cls((3,)), box=(0, 2), context=torch.tensor([0.3, -1.2, 2.0]))


class GreyBernoulli(Bernoulli):
    """The cross-entropy Σ y l - softplus(l) of grey values y = x / (L - 1) in [0, 1], as if they were probabilities.

    This is what many implementations of VAEs minimise on grey pictures. It is no log-likelihood, as it is not
    normalised over [0, 1] or over the levels: `likelihood` is "none", and bits per dim of it do not exist.
    """

    likelihood = "none"
    whole = False
    levels: int

    def __init__(self, shape: tuple[int, ...], levels: int = 2) -> None:
        super().__init__(shape)
        self.levels = check_levels(levels)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check_events(x, context)
        return cross_entropy(x / (self.levels - 1), given(context))

    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        return super().sample(n, context, temperature) * (self.levels - 1)

    def mean(self, context: Tensor) -> Tensor:
        return torch.sigmoid(context) * (self.levels - 1)

    @classmethod
    def examples(cls) -> Iterator[Case]:
        yield Case(cls((2,), 2), box=(0, 2), context=torch.tensor([0.3, -1.2]))


class Categorical(OfLevels):
    """Independent levels 0..L-1, L logits for each number of an event."""

    levels: int

    def __init__(self, shape: tuple[int, ...], levels: int) -> None:
        super().__init__(shape)
        self.levels = self.parameters_per_feature = check_levels(levels)

    def _logits(self, context: Tensor) -> Tensor:
        """Return logits (B, *shape, L)."""
        return context.unflatten(1, (self.levels, self.shape[0])).movedim(1, -1)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check_events(x, context)
        log_p = self._logits(given(context)).log_softmax(-1)
        return total(log_p.gather(-1, x.long().unsqueeze(-1)).squeeze(-1))

    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        self.check_draw(n, context, temperature)
        logits = self._logits(given(context))
        scale = temperature.unsqueeze(-1) if isinstance(temperature, Tensor) else temperature
        return (logits + scale * gumbel(logits)).argmax(-1).to(logits)

    def mean(self, context: Tensor) -> Tensor:
        p = self._logits(context).softmax(-1)
        return (p * torch.arange(self.levels).to(p)).sum(-1)

    @classmethod
    def examples(cls) -> Iterator[Case]:
        yield Case(cls((2,), 4), box=(0, 4), context=torch.tensor([0.3, -1.2, 0.5, 2.0, -0.3, 0.1, 0.2, 1.0]))


class LogisticMixture(OfLevels):
    """A mixture of logistics for each pixel, its mass in the bins of levels 0..L-1 (Salimans et al. 2017, PixelCNN++).

    P(x) = Σ_k w_k Π_c [σ((x_c + ½ - μ)/s) - σ((x_c - ½ - μ)/s)], the outermost bins with all that lies beyond. The
    channels of a pixel share the component, and the mean of each is shifted by the channels before it, linearly, by
    coefficients tanh(·). Units are half of the range: levels are spread over [-1, 1]. For each feature the context has
    K logits (whose mean over features counts), K means, K log-scales and K coefficients for each feature before it.
    """

    levels: int

    def __init__(self, shape: tuple[int, ...], levels: int, components: int = 10) -> None:
        super().__init__(shape)
        if components < 1:
            raise UsageError(f"a mixture expects at least 1 component; {components} came")
        self.levels, self.components = check_levels(levels), components
        self.coupled = shape[0] if len(shape) > 1 else 0
        self.parameters_per_feature = components * (3 + self.coupled)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check_events(x, context)
        log_weights, loc, log_scale, coefficients = self._split(given(context))
        y = self._scaled(x)
        shift = sum((coefficients[:, :, c] * y[:, None, c : c + 1] for c in range(self.coupled)), torch.zeros_like(loc))
        log_mass = self._log_mass(y.unsqueeze(1) - loc - shift, y.unsqueeze(1), (-log_scale).exp())
        if not self.coupled:
            return total(torch.logsumexp(log_weights + log_mass, 1))
        return total(torch.logsumexp(log_weights + log_mass.sum(2), 1))

    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        self.check_draw(n, context, temperature)
        log_weights, loc, log_scale, coefficients = self._split(given(context))
        shared = temperature.double().mean().to(log_weights) if isinstance(temperature, Tensor) else temperature
        k = (log_weights + shared * gumbel(log_weights)).argmax(1, keepdim=True)
        if self.coupled:
            k = k.unsqueeze(2)

        def chosen(values: Tensor) -> Tensor:
            return values.gather(1, k.expand(-1, -1, *values.shape[2:])).squeeze(1)

        loc, scale = chosen(loc), chosen(log_scale).exp()
        noise = temperature * scale * torch.logit(torch.rand_like(loc), eps=torch.finfo(loc.dtype).eps)
        if not self.coupled:
            return self._level(loc + noise)
        done: list[Tensor] = []
        own = [chosen(coefficients[:, :, c]) for c in range(self.coupled)]
        for c in range(self.coupled):
            shift = sum((own[b][:, c] * done[b] for b in range(c)), torch.zeros_like(loc[:, c]))
            done.append(self._scaled(self._level(loc[:, c] + shift + noise[:, c])))
        return self._level(torch.stack(done, 1))

    def mean(self, context: Tensor) -> Tensor:
        """Return the mean over components of their means, channel after channel, as a level that need not be whole.

        A component's mean is that of its logistic, which is not that of its levels where it reaches beyond the range.
        """
        log_weights, loc, _, coefficients = self._split(context)
        if not self.coupled:
            return self._unscaled((log_weights.exp() * loc).sum(1))
        done: list[Tensor] = []
        for c in range(self.coupled):
            shift = sum((coefficients[:, :, b, c] * done[b] for b in range(c)), torch.zeros_like(loc[:, :, c]))
            done.append((loc[:, :, c] + shift).clamp(-1, 1))
        return self._unscaled((log_weights.exp().unsqueeze(2) * torch.stack(done, 2)).sum(1))

    def _split(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return log-weights, means and log-scales (B, K, C, ...), the weights without C for pictures; coefficients.

        The coefficients are (B, K, before, C, ...), nought but where `before` comes before C.
        """
        parts = context.unflatten(1, (3 + self.coupled, self.components, self.shape[0]))
        logits, loc, log_scale = parts[:, 0], parts[:, 1], parts[:, 2].clamp_min(LEAST_LOG_SCALE)
        log_weights = F.log_softmax(logits.mean(2) if self.coupled else logits, 1)
        before = torch.triu(torch.ones(self.coupled, self.shape[0]), diagonal=1).to(context)
        coefficients = parts[:, 3:].transpose(1, 2).tanh()
        return log_weights, loc, log_scale, coefficients * before.reshape(*before.shape, *[1] * (len(self.shape) - 1))

    def _log_mass(self, centred: Tensor, y: Tensor, precision: Tensor) -> Tensor:
        """Return the logarithm of the mass in the bin about y, for y - μ and 1/s."""
        half = 1 / (self.levels - 1)
        high, low = (centred + half) * precision, (centred - half) * precision
        inside = F.logsigmoid(high) + F.logsigmoid(-low) + torch.log(-torch.expm1(low - high))
        lowest, highest = F.logsigmoid(high), F.logsigmoid(-low)
        return torch.where(y < -1 + half, lowest, torch.where(y > 1 - half, highest, inside))

    def _scaled(self, x: Tensor) -> Tensor:
        return x * (2 / (self.levels - 1)) - 1

    def _unscaled(self, y: Tensor) -> Tensor:
        return (y.clamp(-1, 1) + 1) * ((self.levels - 1) / 2)

    def _level(self, y: Tensor) -> Tensor:
        return self._unscaled(y).round()

    @classmethod
    def examples(cls) -> Iterator[Case]:
        torch.manual_seed(0)
        yield Case(cls((2,), 5, 3), box=(0, 5), context=torch.randn(18))
        yield Case(cls((3, 1, 1), 4, 2), box=(0, 4), context=torch.randn(36, 1, 1))


def cross_entropy(y: Tensor, logits: Tensor) -> Tensor:
    """Return Σ y l - softplus(l), (B,): for y of 0 and 1 a log-probability."""
    return total(y * logits - F.softplus(logits))


def check_levels(levels: int) -> int:
    """Raise UsageError unless there are at least two levels."""
    if not isinstance(levels, int) or levels < 2:
        raise UsageError(f"expected at least 2 levels; {levels} came")
    return levels

"""Importance weights: what a flow's draws are worth under the density that it was fitted to."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from longflow.distributions import Distribution
from longflow.errors import UsageError
from longflow.inference.divergences import LogDensity, check_weights, evaluated
from longflow.inference.evaluating import evaluating
from longflow.inference.pareto import TRUSTED, pareto_smoothed
from longflow.seeds import fixed_draws

ROWS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Weighted:
    """Draws x_i ~ q, (N, *shape), and log w_i = log p̃(x_i) - log q(x_i), (N,), in nats."""

    samples: Tensor
    log_weights: Tensor

    def __post_init__(self) -> None:
        if len(self.samples) != len(self.log_weights) or self.log_weights.dim() != 1 or not len(self.samples):
            came = f"{len(self.samples)} and weights of shape {tuple(self.log_weights.shape)}"
            raise UsageError(f"expected at least 1 draw and a log-weight for each; {came} came")
        check_weights(self.log_weights)

    @property
    def weights(self) -> Tensor:
        """The weights at sum 1, (N,)."""
        return self.log_weights.softmax(0)

    @cached_property
    def ess(self) -> float:
        """The effective sample size (Σw)²/Σw² (Kish; Owen 2013, section 9.3): N where all weights are equal."""
        return float(1 / self.weights.double().square().sum())

    @cached_property
    def log_z(self) -> float:
        """The logarithm of (1/N) Σ w, in nats: no bias for Z, one from below for log Z (Burda et al. 2016)."""
        return float(self.log_weights.double().logsumexp(0)) - math.log(len(self.log_weights))

    @cached_property
    def log_z_stderr(self) -> float:
        """The standard error of `log_z`, to first order: the coefficient of variation of w over √N."""
        relative = self.weights.double() * len(self.weights)
        return float(relative.std()) / math.sqrt(len(relative))

    @cached_property
    def elbo(self) -> float:
        """The mean of log w, in nats: at most log Z on average, by KL(q ‖ p). -∞ where a draw has no density."""
        return float(self.log_weights.double().mean())

    @cached_property
    def elbo_stderr(self) -> float:
        """The standard error of `elbo`."""
        return float(self.log_weights.double().std()) / math.sqrt(len(self.log_weights))

    @cached_property
    def k_hat(self) -> float:
        """The tail index of the weights: above 0.7 none of these numbers can be trusted (`pareto_smoothed`)."""
        return pareto_smoothed(self.log_weights)[1]

    @property
    def trusted(self) -> bool:
        """Whether k̂ is at most 0.7."""
        return self.k_hat <= TRUSTED

    def smoothed(self) -> "Weighted":
        """Return the same draws with Pareto-smoothed weights: a little bias, much less variance."""
        return Weighted(self.samples, pareto_smoothed(self.log_weights)[0])

    def mean(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return E_p of values h(x_i), (N, ...), self-normalised, and its standard error (Owen 2013, eq. 9.8).

        Values may be of any type of numbers, truths included (whose mean is a probability).
        """
        if values.shape[:1] != self.log_weights.shape:
            raise UsageError(f"expected a value for each of {len(self.log_weights)} draws; {tuple(values.shape)} came")
        values = values.to(torch.promote_types(values.dtype, self.log_weights.dtype))
        w = self.weights.to(values).reshape(-1, *[1] * (values.dim() - 1))
        mean = (w * values).sum(0)
        return mean, (w * (values - mean)).square().sum(0).sqrt()

    def resample(self, n: int, seed: int = 0) -> Tensor:
        """Draw n events with replacement in proportion to their weights, (n, *shape): about p where k̂ is small."""
        if n < 0:
            raise UsageError(f"expected a number of samples >= 0; {n} came")
        with fixed_draws(seed):
            chosen = torch.multinomial(self.weights, n, replacement=True) if n else torch.zeros(0, dtype=torch.long)
        return self.samples[chosen]


def importance(flow: Distribution, log_density: LogDensity, n: int, *, seed: int = 0) -> Weighted:
    """Draw n events of the flow and weigh them by log p̃ - log q, with draws that the seed fixes.

    The flow draws in evaluation mode, and is left in the mode it was in. Raises UsageError for n < 1, a flow whose
    log q is not exact, a log-density of the wrong shape, NaN or +∞ (naming rows), or 0 at every draw.
    """
    if n < 1:
        raise UsageError(f"importance weights expect at least 1 draw; {n} came")
    if flow.likelihood != "exact":
        raise UsageError(f"importance weights expect exact likelihoods of the draws; '{flow.likelihood}' came")
    sizes = [min(ROWS_AT_ONCE, n - done) for done in range(0, n, ROWS_AT_ONCE)]
    with fixed_draws(seed), torch.no_grad(), evaluating(flow):
        samples, log_weights = zip(*[_weighed(flow, log_density, size) for size in sizes], strict=True)
    return Weighted(torch.cat(samples), torch.cat(log_weights))


def _weighed(flow: Distribution, log_density: LogDensity, n: int) -> tuple[Tensor, Tensor]:
    x, log_q = flow.sample_and_log_prob(n)
    return x, evaluated(log_density, x) - log_q

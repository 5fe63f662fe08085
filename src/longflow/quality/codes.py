"""What Gaussian codes q(z | x) hold of x, measured over N events: the KL term of an ELBO, taken apart."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from longflow.errors import UsageError

ACTIVE = 0.01
"""Variance of a code's mean over events from which a unit is active (Burda, Grosse & Salakhutdinov 2016, §5.2)."""

LogPrior = Callable[[np.ndarray], np.ndarray]
"""Codes (M, d) to log p(z), (M,), in nats."""

AT_ONCE = 2**17
"""Densities that are held at once: 1 MiB of float64, which stays in the cache."""


@dataclass(frozen=True, eq=False)
class Codes:
    """Posteriors q(z | x_n) = N(μ_n, diag σ_n²) of N events, their mean q(z) = 1/N Σ_n q(z | x_n), and a prior p(z).

    mean KL(q(z|x) ‖ p(z)) = I(X; Z) + KL(q(z) ‖ p(z)): what the codes say of x, and how far all of them together are
    from the prior that samples are drawn from (Hoffman & Johnson 2016). All in nats.

    Attributes:
        n: events; the mutual information of N of them is at most `ceiling`, log N, and says so little where near it.
        kl: the mean over events, under N(0, I) in closed form; under any other prior an estimate from the draws.
        kl_of_dims: that of each dimension, (d,), of which it is the sum under N(0, I); else None, as it is of no sum.
        stderr_kl: its standard error; None where it is in closed form.
        mutual_information: of an event, drawn from the N, and its code: an estimate from `draws` codes of each event.
        stderr: its standard error.
        gap: KL(q(z) ‖ p(z)), the difference of the two above: it is >= 0, but its estimate may be below by noise.
        stderr_gap: its standard error: that of log q(z) - log p(z), where both are estimates from the same draws.
        active: dimensions whose mean varies over events by more than 0.01; `variances`, (d,), are how much.
    """

    n: int
    kl: float
    kl_of_dims: np.ndarray | None
    stderr_kl: float | None
    mutual_information: float
    stderr: float
    stderr_gap: float
    draws: int
    active: int
    variances: np.ndarray

    @property
    def gap(self) -> float:
        """KL(q(z) ‖ p(z)) = mean KL - I(X; Z)."""
        return self.kl - self.mutual_information

    @property
    def ceiling(self) -> float:
        """The most that I(X; Z) of N events can be: log N, in nats."""
        return math.log(self.n)


def diagnose_codes(
    mu: np.ndarray, log_scale: np.ndarray, *, log_prior: LogPrior | None = None, draws: int = 4, seed: int = 0
) -> Codes:
    """Measure posteriors of means `mu` and log-deviations `log_scale` (log σ, not log σ²), both (N, d).

    The prior is N(0, I), or that of `log_prior`.

    Raises:
        UsageError: shapes differ, a number is not finite, fewer than two events or two draws.
    """
    if mu.ndim != 2 or mu.shape != log_scale.shape or len(mu) < 2 or draws < 2:
        raise UsageError(
            f"expected means and log-deviations of one shape (N, d), N >= 2, and at least 2 draws;"
            f" {mu.shape}, {log_scale.shape} and {draws} came"
        )
    mu, log_scale = mu.astype(np.float64), log_scale.astype(np.float64)
    if not (np.isfinite(mu).all() and np.isfinite(log_scale).all()):
        raise UsageError("expected finite means and log-deviations")
    information = information_of_draws(mu, log_scale, draws, seed)
    error, variances = error_of_draws(information), mu.var(0)
    if log_prior is None:
        of_dims = (0.5 * (np.square(mu) + np.exp(2 * log_scale) - 1) - log_scale).mean(0)
        kl, error_of_kl, error_of_gap = of_dims.sum(), None, error
    else:
        drawn = divergence_of_draws(mu, log_scale, log_prior, draws, seed)
        kl, of_dims = drawn.mean(), None
        error_of_kl, error_of_gap = error_of_draws(drawn), error_of_draws(drawn - information)
    return Codes(
        n=len(mu),
        kl=float(kl),
        kl_of_dims=of_dims,
        stderr_kl=error_of_kl,
        mutual_information=float(information.mean()),
        stderr=error,
        stderr_gap=error_of_gap,
        draws=draws,
        active=int((variances > ACTIVE).sum()),
        variances=variances,
    )


def error_of_draws(values: np.ndarray) -> float:
    """Return the standard error of the mean of values (N, draws) of N events.

    The events are all there: what is drawn is codes, so that the variance is that within events.
    """
    n, draws = values.shape
    return float(np.sqrt(values.var(1, ddof=1).sum() / draws) / n)


def divergence_of_draws(
    mu: np.ndarray, log_scale: np.ndarray, log_prior: LogPrior, draws: int, seed: int = 0
) -> np.ndarray:
    """Return log q(z | x_n) - log p(z) of codes z ~ q(z | x_n), (N, draws), in nats: those of `information_of_draws`.

    Less what that returns it is log q(z) - log p(z), in which the noise of log q(z | x_n) is no more.
    """
    constant = 0.5 * mu.shape[1] * math.log(2 * math.pi)
    return np.stack([own - constant - log_prior(z) for z, own in _codes(mu, log_scale, draws, seed)], 1)


def information_of_draws(mu: np.ndarray, log_scale: np.ndarray, draws: int, seed: int = 0) -> np.ndarray:
    """Return log q(z | x_n) - log q(z) of codes z ~ q(z | x_n), of shape (N, draws), in nats; each is at most log N.

    Both logarithms are of the same z, so that the difference has no noise where the posteriors are all the same, or all
    apart, however noisy each is.
    """
    codes = _codes(mu, log_scale, draws, seed)
    return np.stack([own - _log_mean_density(z, own, mu, log_scale) for z, own in codes], 1)


def _codes(mu: np.ndarray, log_scale: np.ndarray, draws: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield codes z ~ q(z | x_n), (N, d), and log q(z | x_n) but for the constant d/2 log 2π, (N,), `draws` times."""
    random, deviations = np.random.default_rng(seed), np.exp(log_scale)
    for _ in range(draws):
        noise = random.standard_normal(mu.shape)
        yield mu + deviations * noise, -0.5 * np.square(noise).sum(1) - log_scale.sum(1)


def _log_mean_density(z: np.ndarray, own: np.ndarray, mu: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
    """Return log q(z_n), q(z) = 1/N Σ_j q(z | x_j), but for the constant, (N,); `own` is log q(z_n | x_n)."""
    n = len(z)
    found, step = np.empty(n), max(1, AT_ONCE // n)
    for start in range(0, n, step):
        rows = slice(start, start + step)
        among = _log_densities(z[rows], mu, log_scale)
        # The draw's own posterior by its noise, as exactly as `own`.
        among[np.arange(len(among)), np.arange(n)[rows]] = own[rows]
        top = among.max(1, keepdims=True)
        found[rows] = top[:, 0] + np.log(np.exp(among - top).sum(1)) - math.log(n)
    return found


def _log_densities(z: np.ndarray, mu: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
    """Return log q(z_i | x_j) but for the constant d/2 log 2π, (M, N), for z, (M, d)."""
    total = np.zeros((len(z), len(mu))) - log_scale.sum(1)
    precision = np.sqrt(0.5) * np.exp(-log_scale)
    # Dimension by dimension: by matrix products, narrow posteriors would lose their digits to cancellation.
    for j in range(mu.shape[1]):
        gaps = z[:, j, None] - mu[:, j]
        gaps *= precision[:, j]
        total -= np.square(gaps, out=gaps)
    return total

"""What Gaussian codes q(z | x) hold of x, measured over N events: the KL term of an ELBO, taken apart."""

import math
from dataclasses import dataclass

import numpy as np

from longflow.errors import UsageError

ACTIVE = 0.01
"""Variance of a code's mean over events from which a unit is active (Burda, Grosse & Salakhutdinov 2016, §5.2)."""

AT_ONCE = 2**17
"""Densities that are held at once: 1 MiB of float64, which stays in the cache."""


@dataclass(frozen=True, eq=False)
class Codes:
    """Posteriors q(z | x_n) = N(μ_n, diag σ_n²) of N events, their mean q(z) = 1/N Σ_n q(z | x_n), the prior N(0, I).

    mean KL(q(z|x) ‖ p(z)) = I(X; Z) + KL(q(z) ‖ p(z)): what the codes say of x, and how far all of them together are
    from the prior that samples are drawn from (Hoffman & Johnson 2016). All in nats.

    Attributes:
        n: events; the mutual information of N of them is at most `ceiling`, log N, and says so little where near it.
        kl: the mean over events; `kl_of_dims` of each dimension, (d,), of which it is the sum.
        mutual_information: of an event, drawn from the N, and its code: an estimate from `draws` codes of each event.
        stderr: its standard error, that of `gap` too.
        gap: KL(q(z) ‖ p(z)), the difference of the two above: it is >= 0, but its estimate may be below by noise.
        active: dimensions whose mean varies over events by more than 0.01; `variances`, (d,), are how much.
    """

    n: int
    kl: float
    kl_of_dims: np.ndarray
    mutual_information: float
    stderr: float
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


def diagnose_codes(mu: np.ndarray, log_scale: np.ndarray, *, draws: int = 4, seed: int = 0) -> Codes:
    """Measure posteriors of means `mu` and log-deviations `log_scale` (log σ, not log σ²), both (N, d).

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
    kl = (0.5 * (np.square(mu) + np.exp(2 * log_scale) - 1) - log_scale).mean(0)
    found = information_of_draws(mu, log_scale, draws, seed)
    variances = mu.var(0)
    return Codes(
        n=len(mu),
        kl=float(kl.sum()),
        kl_of_dims=kl,
        mutual_information=float(found.mean()),
        # The events are all there: what is drawn is codes, so that the variance is that within events.
        stderr=float(np.sqrt(found.var(1, ddof=1).sum() / draws) / len(mu)),
        draws=draws,
        active=int((variances > ACTIVE).sum()),
        variances=variances,
    )


def information_of_draws(mu: np.ndarray, log_scale: np.ndarray, draws: int, seed: int = 0) -> np.ndarray:
    """Return log q(z | x_n) - log q(z) of codes z ~ q(z | x_n), of shape (N, draws), in nats; each is at most log N.

    Both logarithms are of the same z, so that the difference has no noise where the posteriors are all the same, or all
    apart, however noisy each is.
    """
    n, _ = mu.shape
    noise = np.random.default_rng(seed).standard_normal((draws, *mu.shape))
    own = -0.5 * np.square(noise).sum(2) - log_scale.sum(1)
    z = mu + np.exp(log_scale) * noise
    found = np.empty((draws, n))
    step = max(1, AT_ONCE // n)
    for k in range(draws):
        for start in range(0, n, step):
            rows = slice(start, start + step)
            among = _log_densities(z[k, rows], mu, log_scale)
            # The draw's own posterior by its noise, as exactly as `own`.
            among[np.arange(len(among)), np.arange(n)[rows]] = own[k, rows]
            top = among.max(1, keepdims=True)
            mean = top[:, 0] + np.log(np.exp(among - top).sum(1)) - math.log(n)
            found[k, rows] = own[k, rows] - mean
    return found.T


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

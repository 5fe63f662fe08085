"""Can importance weights be trusted? The tail of their distribution says: Pareto-smoothed importance sampling."""

import math

import torch
from torch import Tensor

TRUSTED = 0.7
"""Weights of a larger k̂ have means that no affordable number of draws settles (Vehtari et al. 2024, section 3.2)."""

FEWEST_IN_TAIL = 5
PRIOR_WORTH = 10


def generalised_pareto(exceedances: Tensor) -> tuple[float, float]:
    """Fit P(X > x) = (1 + k x/σ)^(-1/k) to exceedances x > 0, (N,); return (k, σ).

    A quasi-Bayesian estimate, which exists for every sample: the posterior mean of θ = -k/σ over a grid of a
    data-dependent prior, and k given θ by maximum likelihood (Zhang & Stephens 2009, section 3).
    """
    x = exceedances.double().sort().values
    n = len(x)
    grid = 30 + int(math.sqrt(n))
    quartile = x[int(n / 4 + 0.5) - 1]
    j = torch.arange(1, grid + 1).to(x)
    theta = 1 / x[-1] + (1 - (grid / (j - 0.5)).sqrt()) / (3 * quartile)
    k = torch.log1p(-theta[:, None] * x).mean(1)
    log_likelihood = n * ((-theta / k).log() - k - 1)
    best = (log_likelihood.softmax(0) * theta).sum()
    shape = torch.log1p(-best * x).mean()
    return float(shape), float(-shape / best)


def pareto_smoothed(log_weights: Tensor) -> tuple[Tensor, float]:
    """Return log-weights, (N,), whose largest are replaced by quantiles of the tail's fit, and k̂ of that tail.

    The tail are the min(N/5, 3√N) largest (Vehtari, Simpson, Gelman, Yao & Gabry 2024, section 2.4), none of which then
    exceeds the largest raw one; k̂ is drawn to ½ by a prior worth ten observations (appendix G). Weights have about
    1/k̂ moments: below ½ the central limit theorem holds, above 0.7 they are not to be trusted. k̂ is +∞ where fewer
    than five weights are in the tail, as nothing is known of it then, and -∞ where all of the tail are equal.
    """
    n = len(log_weights)
    tail = math.ceil(min(0.2 * n, 3 * math.sqrt(n)))
    if tail < FEWEST_IN_TAIL:
        return log_weights, math.inf
    order = log_weights.argsort()
    ceiling = log_weights[order[-1]].double()
    relative = (log_weights[order[-tail - 1 :]].double() - ceiling).exp()
    if not bool(relative[0] < 1 - torch.finfo(log_weights.dtype).eps * tail):
        return log_weights, -math.inf
    exceedances = relative[1:] - relative[0]
    above = exceedances[exceedances > 0]
    if len(above) < FEWEST_IN_TAIL:
        return log_weights, math.inf
    raw, sigma = generalised_pareto(above)
    k = (raw * len(above) + 0.5 * PRIOR_WORTH) / (len(above) + PRIOR_WORTH)
    ranks = (torch.arange(1, len(above) + 1).to(above) - 0.5) / len(above)
    smoothed = log_weights.clone()
    quantiles = (relative[0] + sigma * _quantile(k, ranks)).log().clamp_max(0)
    smoothed[order[-len(above) :]] = (quantiles + ceiling).to(log_weights)
    return smoothed, k


def _quantile(k: float, p: Tensor) -> Tensor:
    """Return ((1 - p)^-k - 1)/k, of scale 1."""
    return -torch.log1p(-p) if abs(k) < 1e-12 else torch.expm1(-k * torch.log1p(-p)) / k

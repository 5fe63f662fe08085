"""Is a posterior as wide as it says? Simulation-based calibration."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from longflow.errors import UsageError
from longflow.inference.checks import finite_rows


def sbc_ranks(sample: Callable[[int, Tensor], Tensor], theta: Tensor, x: Tensor, *, draws: int = 99) -> Tensor:
    """Return the rank of each true parameter among draws of its posterior, whole numbers 0..draws, (N, d).

    θ_i ~ prior, x_i ~ p(x | θ_i), and `sample(n, x_i)` draws θ' from the posterior, (n, d): ranks are then uniform
    where it is exact, heaped at both ends where it is too narrow, in the middle where it is too wide, at one end where
    it is shifted (Talts et al. 2018, theorem 1). Raises UsageError for numbers that are not finite: they have no rank.
    """
    if theta.dim() != 2 or len(theta) != len(x) or draws < 1:
        came = f"{tuple(theta.shape)}, {tuple(x.shape)} and {draws} draws"
        raise UsageError(f"expected parameters (N, d), as many observations, and at least 1 draw; {came} came")
    finite_rows("parameters", theta)
    ranks = theta.new_zeros(theta.shape, dtype=torch.long)
    for row, (true, seen) in enumerate(zip(theta, x, strict=True)):
        ranks[row] = (_checked(sample(draws, seen), (draws, len(true)), row) < true).sum(0)
    return ranks


def _checked(drawn: Tensor, shape: tuple[int, int], row: int) -> Tensor:
    if drawn.shape != shape:
        raise UsageError(f"ranks expect draws of shape {shape}; {tuple(drawn.shape)} came for row {row}")
    wrong = int((~drawn.isfinite().all(1)).sum())
    if wrong:
        raise UsageError(f"ranks expect finite draws; {wrong} of {len(drawn)} are not for row {row}")
    return drawn


def uniformity(ranks: Tensor, draws: int, *, bins: int = 20) -> Tensor:
    """Return the p-value of uniform ranks for each parameter, (d,): Pearson's χ² over bins of equally many ranks.

    `bins` must divide draws + 1, the number of ranks. The χ² distribution is good for some five rows in a bin.
    """
    if (draws + 1) % bins or bins < 2:
        raise UsageError(f"expected at least 2 bins that divide {draws + 1} ranks equally; {bins} came")
    if len(ranks) < 5 * bins:
        raise UsageError(f"expected at least {5 * bins} rows for {bins} bins; {len(ranks)} came")
    bin_of = ranks // ((draws + 1) // bins)
    counts = torch.stack([(bin_of == b).sum(0) for b in range(bins)]).double()
    expected = len(ranks) / bins
    statistic = (counts - expected).square().sum(0) / expected
    return torch.special.gammaincc(torch.full_like(statistic, (bins - 1) / 2), statistic / 2).clamp_min(math.ulp(0.0))

"""Scores by which an event can be called strange, each with the ways in which it is known to fail.

All say more for a stranger event. They take log-likelihoods in nats, (B,), as a model's `log_prob` or `bound` gives
them, so that what is costly is computed once; `latent_misfit` takes the model.

What no score cures: a model of few data or steps is wrong where data are rare, which is where anomalies are; and a
density alone defines no outlier (Le Lan & Dinh 2021: a change of variables, which leaves the data as they are, moves
densities at will).
"""

import io
import zlib
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from longflow.distributions import LatentModel
from longflow.errors import UsageError, choose


def surprise(log_prob: Tensor) -> Tensor:
    """Return -log p(x), (B,), in nats: the log-likelihood as a score.

    Fit for tables whose anomalies lie where data are rare. Not for pictures: a flow of Fashion-MNIST gives MNIST, and
    one of CIFAR-10 gives SVHN, a higher likelihood than its own test events (Nalisnick et al. 2019, ICLR), since simple
    events score high whatever they show. In many dimensions samples lie in a shell, not at the mode, which scores
    highest of all and may be an event that never comes.
    """
    return -log_prob


def entropy(log_prob: Tensor) -> float:
    """Return the mean of -log p over rows of the data, in nats: what typical events have (Nalisnick et al. 2019b)."""
    return float(-log_prob.double().mean())


def atypicality(log_prob: Tensor, typical: float) -> Tensor:
    """Return |-log p(x) - H|, (B,), in nats, for the entropy H (Nalisnick et al. 2019, arXiv 1906.02994, eq. 3).

    Two-sided: what is too likely is strange, too. It is blind to events of another kind that happen to have the
    likelihood of typical ones, it calls rows atypical that are merely likely (the denser of two modes), and of single
    events it knows little, as the authors say: their test is of batches (`batch_atypicality`).
    """
    return (-log_prob - typical).abs()


def batch_atypicality(log_prob: Tensor, typical: float) -> float:
    """Return |mean of -log p - H| of a batch of events that come together, in nats (Nalisnick et al. 2019b, eq. 4)."""
    return abs(float(-log_prob.double().mean()) - typical)


def atypical_above(
    log_prob: Tensor, typical: float, *, size: int, level: float = 0.01, draws: int = 10_000, seed: int = 0
) -> float:
    """Return what batches of `size` typical events exceed by chance with the probability `level`.

    From bootstrapped batches of held-out rows, whose log-likelihoods are (N,) (Nalisnick et al. 2019b, section 3.1).
    """
    if size < 1 or not 0 < level < 1:
        raise UsageError(f"expected batches of size >= 1 and a level between 0 and 1; {size} and {level} came")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(log_prob), (draws, size), generator=generator)
    means = -log_prob.double().cpu()[chosen].mean(1)
    return float((means - typical).abs().quantile(1 - level))


def likelihood_ratio(log_prob: Tensor, background: Tensor) -> Tensor:
    """Return log p_background(x) - log p(x), (B,), in nats (Ren et al. 2019, section 3).

    The background is a density of what is not to count: a model of perturbed rows (`perturbed`), as in the paper, or
    any other of the same events. What both find likely for the same reason, such as flat pictures, cancels. So do
    anomalies that both find strange for the same reason: against a background of independent columns, a single value
    far out is no anomaly. The rate of perturbation matters, and there are no anomalies to choose it by.
    """
    return background - log_prob


def perturbed(
    rows: np.ndarray, rate: float, generator: np.random.Generator, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return rows (N, *shape) in which each number is, with the probability `rate`, that of another row in its place.

    So columns keep their distributions and lose part of what ties them (Ren et al. 2019, section 4, whose letters are
    drawn uniformly; values of a table have no alphabet). The other row is drawn by its weight, (N,). Where that would
    take from a column all values but one, it is left as it is.
    """
    if not 0 < rate <= 1:
        raise UsageError(f"expected a rate above 0 and of at most 1; {rate} came")
    flat = rows.reshape(len(rows), -1)
    share = None if weights is None else weights / weights.sum()
    others = np.take_along_axis(flat, generator.choice(len(flat), flat.shape, p=share), 0)
    found = np.where(generator.random(flat.shape) < rate, others, flat)
    return np.where(found.min(0) == found.max(0), flat, found).reshape(rows.shape)


def excess_bits(log_prob: Tensor, pictures: np.ndarray) -> Tensor:
    """Return -log2 p(x) - L(x), (B,), in bits, L the length of the losslessly compressed picture (Serrà et al. 2020).

    For pictures of levels, uint8 (B, C, H, W) of 1 or 3 channels, whose likelihood is one of levels. A likelihood ratio
    with the compressor for background: it takes away that simple pictures score high. It fails where anomalies are
    more complex than the model's data (noise), and knows nothing that the compressor does not: on pictures of another
    kind and equal complexity it is the likelihood again.
    """
    lengths = torch.tensor([compressed_bits(one) for one in pictures], dtype=torch.float64)
    return -log_prob.double().cpu() / np.log(2) - lengths


def compressed_bits(picture: np.ndarray) -> float:
    """Return the bits of a picture, uint8 (C, H, W), by the better of PNG and DEFLATE."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or len(picture) not in (1, 3):
        raise UsageError(f"expected a picture of levels, (1 or 3, H, W); {picture.dtype} {picture.shape} came")
    pixels = picture[0] if len(picture) == 1 else np.moveaxis(picture, 0, 2)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "png", optimize=True)
    return 8.0 * min(len(file.getvalue()), len(zlib.compress(picture.tobytes(), 9)))


def latent_misfit(model: LatentModel, x: Tensor, *, test: str = "anderson-darling") -> Tensor:
    """Return a statistic, (B,), of how ill the D numbers of an event's latent fit the base density.

    Under the model they are independent draws of the base, hence w = Φ⁻¹(F(z)) of N(0, 1). Tests: `kolmogorov-smirnov`
    (the largest distance of distribution functions, times √D), `anderson-darling` (weighted to the tails) or
    `chi-square` (how far Σ w² is from D, both sides, in standard deviations by Wilson & Hilferty's cube root). Its
    distribution under a trained model is not the textbook's: give it a p-value by rows that were held out (`p_values`).

    Numbers are tested as a bag: it is blind to where in the latent they are, and to what ties them, and weak for few
    numbers (of D < 5 there is little to test; of D = 1 the likelihood's two tails). Latents of pictures of another kind
    are often as normal as those of the data.
    """
    statistic = STATISTICS[choose("test of latents", test, STATISTICS)]
    return statistic(model.base.normal_scores(model.encode(x)).double().flatten(1).sort(1).values)


def _kolmogorov_smirnov(w: Tensor) -> Tensor:
    n, u = w.shape[1], torch.special.ndtr(w)
    rank = torch.arange(n, dtype=w.dtype, device=w.device)
    return n**0.5 * torch.maximum((rank + 1) / n - u, u - rank / n).amax(1)


def _anderson_darling(w: Tensor) -> Tensor:
    n = w.shape[1]
    odd = 2 * torch.arange(n, dtype=w.dtype, device=w.device) + 1
    return -n - (odd * (torch.special.log_ndtr(w) + torch.special.log_ndtr(-w.flip(1)))).mean(1)


def _chi_square(w: Tensor) -> Tensor:
    n = w.shape[1]
    return ((w.square().mean(1)) ** (1 / 3) - (1 - 2 / (9 * n))).abs() / (2 / (9 * n)) ** 0.5


STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {
    "kolmogorov-smirnov": _kolmogorov_smirnov,
    "anderson-darling": _anderson_darling,
    "chi-square": _chi_square,
}
"""Of standard normal numbers in ascending order, (B, D), the statistic, (B,)."""


def p_values(scores: Tensor, held_out: Tensor) -> Tensor:
    """Return (1 + number of held-out scores that are at least as large) / (1 + N), (B,): uniform for data like them.

    Exact for rows exchangeable with the N held out (conformal), whatever the score. No p-value is below 1 / (1 + N).
    """
    ordered = held_out.sort().values
    below = torch.searchsorted(ordered, scores.to(ordered))
    return (1 + len(ordered) - below).double() / (1 + len(ordered))

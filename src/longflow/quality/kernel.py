"""The kernel distance of two samples of features: an unbiased estimate of a squared maximum mean discrepancy."""

import numpy as np

from longflow.errors import UsageError

SUBSETS = 10


def kernel_distance(x: np.ndarray, y: np.ndarray, *, subsets: int = SUBSETS, seed: int = 0) -> tuple[float, float]:
    """Return MMD² under the kernel (x·y / F + 1)³ and its standard error, from features x and y, both (N, F).

    Bińkowski et al. 2018, of any features. It is unbiased at every N and so may be negative; 0 is expected of two
    samples of one distribution. The mean is over subsets, as there, but these are disjoint: means of overlapping ones
    are not independent, and the standard error would be too small.

    Raises:
        UsageError: unequal shapes, fewer than two subsets, or fewer than two rows in each.
    """
    if x.shape != y.shape or subsets < 2 or len(x) < 2 * subsets:
        raise UsageError(
            f"expected two samples of one shape (N, F), N >= 2 rows for each of at least 2 subsets;"
            f" {x.shape}, {y.shape} and {subsets} subsets came"
        )
    random = np.random.default_rng(seed)
    parts = [np.array_split(random.permutation(len(x)), subsets) for _ in range(2)]
    found = [mmd_squared(x[left], y[right]) for left, right in zip(*parts, strict=True)]
    return float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(subsets))


def mmd_squared(x: np.ndarray, y: np.ndarray) -> float:
    """Return the unbiased estimate of MMD² from x, (N, F), and y, (M, F) (Gretton et al. 2012, eq. 3)."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    return _mean_of_pairs(x) + _mean_of_pairs(y) - 2 * float(_kernel(x, y).mean())


def _mean_of_pairs(x: np.ndarray) -> float:
    values = _kernel(x, x)
    return float((values.sum() - np.trace(values)) / (len(x) * (len(x) - 1)))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3

"""How much of the samples lies among the data, and how much of the data among the samples: by nearest neighbours."""

import numpy as np

from longflow.errors import UsageError
from longflow.quality.distances import distances, neighbour_radii


def precision_recall(samples: np.ndarray, data: np.ndarray, *, k: int = 3) -> tuple[float, float]:
    """Return improved precision and recall of samples (N, F) against data of the same shape.

    Precision is the share of samples within a ball of the data, recall the share of the data within a ball of the
    samples; the ball of a row reaches to its k-th nearest in its own set (Kynkäänniemi et al. 2019, eqs. 1 and 2). Two
    samples of one distribution have neither at 1, and one outlier's large ball raises either.
    """
    _check(samples, data)
    return float(_inside(samples, data, k).any(1).mean()), float(_inside(data, samples, k).any(1).mean())


def density_coverage(samples: np.ndarray, data: np.ndarray, *, k: int = 5) -> tuple[float, float]:
    """Return density and coverage of samples (N, F) against data of the same shape (Naeem et al. 2020, eqs. 3 and 4).

    Density counts the balls of the data in which a sample is, over k: 1 is expected of two samples of one distribution,
    more where samples crowd where data are dense. Coverage is the share of the data with a sample in their ball,
    1 - (N-1)⋯(N-k) / ((2N-1)⋯(2N-k)) then, some 0.97 at k = 5.
    """
    _check(samples, data)
    inside = _inside(samples, data, k)
    return float(inside.sum() / (k * len(samples))), float(inside.any(0).mean())


def _inside(points: np.ndarray, centres: np.ndarray, k: int) -> np.ndarray:
    """Return whether point i is in the ball of centre j, (N, M)."""
    radii = neighbour_radii(centres, k)
    return np.concatenate([d <= radii for _, d in distances(points, centres)])


def _check(samples: np.ndarray, data: np.ndarray) -> None:
    if samples.shape != data.shape:
        raise UsageError(f"expected as many samples as data, of one shape (N, F); {samples.shape}, {data.shape} came")

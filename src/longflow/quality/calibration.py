"""Whether predicted probabilities are shares."""

import numpy as np

from longflow.errors import UsageError

BINS = 15


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Return the expected calibration error of probabilities (N, K) of classes (N,) (Guo et al. 2017).

    Rows are sorted into `bins` equal intervals of the probability of the class that they find likeliest; it is the mean
    over rows of |share that is right - mean probability| of their interval. It depends on the number of intervals.
    """
    if probabilities.ndim != 2 or probabilities.shape[:1] != labels.shape or not len(labels) or bins < 1:
        raise UsageError(
            f"expected probabilities (N, K) of N >= 1 labels; {probabilities.shape} and {labels.shape} came"
        )
    surest = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == labels
    places = np.minimum((surest * bins).astype(int), bins - 1)
    gaps = np.bincount(places, right - surest, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))

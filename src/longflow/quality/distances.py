"""Euclidean distances between many rows, a block at a time."""

from collections.abc import Iterator

import numpy as np
import torch

from longflow.errors import UsageError
from longflow.units import counted

AT_ONCE = 2**23
"""Distances that are held at once: 64 MiB of float64."""

TRAINING_ROWS_AT_ONCE = 4096


def flat(rows: np.ndarray) -> np.ndarray:
    """Return rows (N, *shape) as vectors (N, D) of float64; raise UsageError where a number is not finite."""
    vectors = rows.reshape(len(rows), -1).astype(np.float64)
    wrong = int((~np.isfinite(vectors)).any(1).sum())
    if wrong:
        raise UsageError(f"expected finite numbers; not so in {wrong} of {counted(len(rows), 'row')}")
    return vectors


def distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield (rows, ‖x_i - y_j‖ of those rows): all of (N, M), some rows of x at a time.

    By differences, not by ‖x‖² + ‖y‖² - 2 x·y, so that the distance of equal rows is 0.
    """
    right = torch.from_numpy(np.ascontiguousarray(y))
    step = max(1, AT_ONCE // len(y))
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        left = torch.from_numpy(np.ascontiguousarray(x[rows]))
        yield rows, torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist").numpy()


def neighbour_radii(x: np.ndarray, k: int) -> np.ndarray:
    """Return the distance of each row of x, (N, D), to its k-th nearest among the others, (N,)."""
    if not 1 <= k < len(x):
        raise UsageError(f"expected more rows than k = {k} neighbours, and k >= 1; {len(x)} rows came")
    # The nearest of all is the row itself, or a copy of it, which is as near.
    return np.concatenate([np.partition(d, k, axis=1)[:, k] for _, d in distances(x, x)])


def nearest(rows: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Return the distance of each row to the nearest of the training rows, (N,); both of shape (·, *shape).

    The nearest one is found by a matrix product, which is fast, and its distance then taken by differences, which is
    exact: that of a copy is 0.
    """
    x = flat(rows)
    best, found = np.full(len(x), np.inf), np.zeros(len(x), dtype=np.intp)
    centre = train[:TRAINING_ROWS_AT_ONCE].reshape(-1, x.shape[1]).mean(0, dtype=np.float64)
    centred = x - centre
    for start in range(0, len(train), TRAINING_ROWS_AT_ONCE):
        y = flat(train[start : start + TRAINING_ROWS_AT_ONCE]) - centre
        # Without ‖x‖², which is the same for all of them.
        gaps = np.square(y).sum(1) - 2 * centred @ y.T
        here = gaps.argmin(1)
        nearer = (least := gaps[np.arange(len(x)), here]) < best
        best[nearer], found[nearer] = least[nearer], start + here[nearer]
    return np.linalg.norm(x - flat(train[found]), axis=1)

"""All measures of samples in a space of features, each beside its floor: the same measure of training rows."""

from typing import Any

import numpy as np

from longflow.errors import UsageError
from longflow.quality.clusters import occupancy
from longflow.quality.coverage import density_coverage, precision_recall
from longflow.quality.features import Extractor
from longflow.quality.frechet import frechet_distance
from longflow.quality.kernel import SUBSETS, kernel_distance

LEAST_ROWS = 2 * SUBSETS
FLOORS = 5
"""Disjoint draws of training rows, at most, from which a floor and its deviation are taken."""


def summarise(
    samples: np.ndarray, held_out: np.ndarray, extractor: Extractor, *, fresh: np.ndarray, seed: int = 0
) -> dict[str, Any]:
    """Measure samples against held-out rows in one space of features, and as many training rows against the same ones.

    Args:
        samples: (N, *shape), in the units of the data.
        held_out: (N, *shape), rows that the model has not seen.
        extractor: what turns rows into features.
        fresh: (L, *shape), L >= N, training rows that the extractor was not made from, of which floors are taken: a
            classifier knows its own rows too well, and their floor would be lower than fresh data could reach.
        seed: of the draws of training rows and of subsets.

    Returns:
        `measures`, by name: `samples`, `floor` (the mean over up to five disjoint draws of training rows) and
        `floor_sd` (their deviation, None of one draw); `class_shares` of samples and held-out rows, None where the
        extractor knows no classes.
    """
    if len(samples) != len(held_out) or len(fresh) < len(samples) or len(samples) < LEAST_ROWS:
        raise UsageError(
            f"expected as many samples as held-out rows, at least {LEAST_ROWS}, and no fewer fresh rows;"
            f" {len(samples)}, {len(held_out)} and {len(fresh)} came"
        )
    target = extractor.features(held_out)
    floors = [measured(extractor, rows, target, seed) for rows in drawn(fresh, len(samples), seed)]
    shares = {name: extractor.classes(rows) for name, rows in (("samples", samples), ("held_out", held_out))}
    classes = 1 + max((int(found.max()) for found in shares.values() if found is not None), default=0)
    return {
        "measures": beside(measured(extractor, samples, target, seed), floors),
        "class_shares": {k: occupancy(v, classes).shares for k, v in shares.items() if v is not None} or None,
    }


def drawn(rows: np.ndarray, n: int, seed: int = 0) -> list[np.ndarray]:
    """Return disjoint draws of n rows each, five at most."""
    order = np.random.default_rng(seed).permutation(len(rows))
    return [rows[order[k * n : (k + 1) * n]] for k in range(min(FLOORS, len(rows) // n))]


def measured(extractor: Extractor, rows: np.ndarray, target: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Return every measure of rows, (N, *shape), against features of held-out rows, (N, F)."""
    x = extractor.features(rows)
    kernel, error = kernel_distance(x, target, seed=seed)
    precision, recall = precision_recall(x, target)
    density, coverage = density_coverage(x, target)
    found = {
        "frechet_distance": frechet_distance(x, target),
        "kernel_distance": kernel,
        "kernel_distance_stderr": error,
        "precision": precision,
        "recall": recall,
        "density": density,
        "coverage": coverage,
    }
    labels = extractor.classes(rows)
    return found if labels is None else {**found, "class_entropy": occupancy(labels, int(labels.max()) + 1).entropy}


def beside(values: dict[str, float], floors: list[dict[str, float]]) -> dict[str, dict[str, float | None]]:
    """Return each measure beside the mean and the deviation of its floors."""
    return {name: {"samples": value, **_floor([floor[name] for floor in floors])} for name, value in values.items()}


def _floor(values: list[float]) -> dict[str, float | None]:
    return {"floor": float(np.mean(values)), "floor_sd": float(np.std(values, ddof=1)) if len(values) > 1 else None}

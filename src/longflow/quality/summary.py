"""All measures of a model's samples, each beside its floor: the same measure of training rows."""

from typing import Any

import numpy as np

from longflow.errors import UsageError
from longflow.quality.clusters import occupancy
from longflow.quality.coverage import density_coverage, precision_recall
from longflow.quality.features import Extractor
from longflow.quality.frechet import frechet_distance
from longflow.quality.kernel import SUBSETS, kernel_distance
from longflow.quality.memorisation import find_copies

LEAST_ROWS = 2 * SUBSETS
FLOORS = 5
"""Disjoint draws of training rows, at most, from which a floor and its deviation are taken."""


def summarise(
    samples: np.ndarray,
    held_out: np.ndarray,
    train: np.ndarray,
    extractor: Extractor,
    *,
    fresh: np.ndarray,
    scale: np.ndarray | float = 1.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure samples against held-out rows, and as many training rows against the same ones.

    Args:
        samples: (N, *shape), in the units of the data.
        held_out: (N, *shape), rows that the model has not seen.
        train: (M, *shape), all the rows that it was trained on.
        extractor: what turns rows into features.
        fresh: (L, *shape), L >= N, training rows that the extractor was not made from, of which floors are taken: a
            classifier knows its own rows too well, and their floor would be lower than fresh data could reach.
        scale: what rows are divided by before distances to training rows are taken, as columns have units.
        seed: of the draws of training rows and of subsets.

    Returns:
        `measures`, by name: `samples`, `floor` (the mean over up to five disjoint draws of training rows) and
        `floor_sd` (their deviation, None of one draw); `nearest_training_row`, see `Memorisation`; where the extractor
        knows classes, `class_shares` of samples and held-out rows.
    """
    if len(samples) != len(held_out) or len(fresh) < len(samples) or len(samples) < LEAST_ROWS:
        raise UsageError(
            f"expected as many samples as held-out rows, at least {LEAST_ROWS}, and no fewer fresh rows;"
            f" {len(samples)}, {len(held_out)} and {len(fresh)} came"
        )
    n = len(samples)
    order = np.random.default_rng(seed).permutation(len(fresh))
    draws = [fresh[order[k * n : (k + 1) * n]] for k in range(min(FLOORS, len(fresh) // n))]
    target = extractor.features(held_out)
    ours = measured(extractor, samples, target, seed)
    floors = [measured(extractor, rows, target, seed) for rows in draws]
    told = {name: _beside(value, [floor[name] for floor in floors]) for name, value in ours.items()}
    near = find_copies(samples / scale, held_out / scale, train / scale)
    shares = {name: extractor.classes(rows) for name, rows in (("samples", samples), ("held_out", held_out))}
    classes = 1 + max((int(found.max()) for found in shares.values() if found is not None), default=0)
    return {
        "n": n,
        "measures": told,
        "nearest_training_row": {**vars(near), "ratio": near.ratio},
        "class_shares": {k: occupancy(v, classes).shares for k, v in shares.items() if v is not None} or None,
    }


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


def _beside(value: float, floors: list[float]) -> dict[str, float | None]:
    deviation = float(np.std(floors, ddof=1)) if len(floors) > 1 else None
    return {"samples": value, "floor": float(np.mean(floors)), "floor_sd": deviation}

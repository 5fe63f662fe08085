"""How well clusters agree with classes, and how clusters are used. Neither needs as many of one as of the other."""

from dataclasses import dataclass

import numpy as np

from longflow.errors import UsageError


@dataclass(frozen=True)
class Agreement:
    """Clusters of N rows beside their classes.

    Attributes:
        accuracy: the share of rows whose class is that of their cluster, when each cluster is given at most one class
            and each class at most one cluster, as well as can be (Hungarian accuracy, ACC). Rows of clusters left over
            count as wrong.
        purity: the share of rows of the commonest class of their cluster (majority vote): classes may share out several
            clusters, so it can only rise with their number, to 1 at a cluster for each row.
        nmi: mutual information over the mean of both entropies.
        ari: adjusted Rand index: 0 is expected of chance, and it may be negative.
        matching: cluster -> class of the accuracy.
    """

    accuracy: float
    purity: float
    nmi: float
    ari: float
    matching: dict[int, int]


@dataclass(frozen=True)
class Occupancy:
    """How many rows each of K clusters has.

    Attributes:
        shares: the share of rows of each cluster, K of them.
        used: the number of clusters with a row.
        entropy: that of the shares, in nats, at most log K.
    """

    shares: list[float]
    used: int
    entropy: float


def agreement(clusters: np.ndarray, classes: np.ndarray) -> Agreement:
    """Compare clusters and classes, (N,) whole numbers >= 0 each; their numbering does not matter."""
    from scipy.optimize import linear_sum_assignment  # scikit-learn's own dependency, slow to import as it is
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    if clusters.ndim != 1 or clusters.shape != classes.shape or not len(clusters):
        raise UsageError(
            f"expected clusters and classes of one shape (N,), N >= 1; {clusters.shape}, {classes.shape} came"
        )
    names, rows = np.unique(clusters, return_inverse=True)
    labels, columns = np.unique(classes, return_inverse=True)
    counts = np.zeros((len(names), len(labels)), dtype=np.int64)
    np.add.at(counts, (rows, columns), 1)
    matched = linear_sum_assignment(counts, maximize=True)
    return Agreement(
        accuracy=float(counts[matched].sum() / len(clusters)),
        purity=float(counts.max(1).sum() / len(clusters)),
        nmi=float(normalized_mutual_info_score(classes, clusters)),
        ari=float(adjusted_rand_score(classes, clusters)),
        matching={int(names[i]): int(labels[j]) for i, j in zip(*matched, strict=True)},
    )


def occupancy(clusters: np.ndarray, count: int) -> Occupancy:
    """Return how `count` clusters are used by rows of clusters (N,), numbered from 0."""
    if not len(clusters) or clusters.min() < 0 or clusters.max() >= count:
        raise UsageError(f"expected clusters of 0 to {count - 1}, at least one row of them")
    shares = np.bincount(clusters, minlength=count) / len(clusters)
    held = shares[shares > 0]
    # 0 + turns the entropy -0 of one cluster into 0.
    return Occupancy(shares.tolist(), len(held), float(0.0 + -(held * np.log(held)).sum()))

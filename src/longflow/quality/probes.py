"""What labels can be read from an embedding, beside what can be read from the rows themselves and without training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from longflow.errors import UsageError, choose

Metric = Literal["cosine", "euclidean"]
METRICS = ("cosine", "euclidean")
FEW_LABELS = 1000


@dataclass(frozen=True, eq=False)
class Labelled:
    """Rows (N, *shape) and their classes (N,)."""

    rows: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Probe:
    """Test accuracies of an embedding, shares of the test rows.

    Attributes:
        linear: of a logistic regression on `labels` labelled training rows.
        cosine: of the k nearest training rows by angle; `euclidean` by distance. All training rows are labelled here.
        stderr: the standard error of a share of 1/2 over so many test rows: the largest that any of them has.
    """

    linear: float
    cosine: float
    euclidean: float
    labels: int
    k: int
    stderr: float


def compare_probes(
    encoder: Callable[[np.ndarray], np.ndarray],
    untrained: Callable[[np.ndarray], np.ndarray],
    train: Labelled,
    test: Labelled,
    *,
    labels: int | None = None,
    k: int = 5,
    seed: int = 0,
) -> Mapping[str, Probe]:
    """Probe an encoder's embedding, that of the same encoder before training, and the rows: "embedding", ….

    Args:
        encoder: maps rows (N, *shape) to embeddings (N, F).
        untrained: the same network with the weights that training starts from: what architecture alone does.
        train: rows of which neighbours are sought, and of which `labels` are drawn for the regression.
        test: rows whose classes are guessed.
        labels: labelled rows of the regression, by default 1,000 or all of fewer; 0 for all of them.
        k: neighbours that vote.
        seed: of the draw of labelled rows, which is the same for all three.
    """
    ways = {"embedding": encoder, "untrained": untrained, "rows": lambda rows: rows.reshape(len(rows), -1)}
    return {
        name: probe(Labelled(way(train.rows), train.labels), Labelled(way(test.rows), test.labels), labels, k, seed)
        for name, way in ways.items()
    }


def probe(train: Labelled, test: Labelled, labels: int | None = None, k: int = 5, seed: int = 0) -> Probe:
    """Probe one embedding: rows of `train` and `test` are (N, F)."""
    if labels is None:
        labels = min(FEW_LABELS, len(train.rows))
    if not 0 <= labels <= len(train.rows):
        raise UsageError(f"expected at most {len(train.rows)} labels, the training rows there are; {labels} came")
    count = labels or len(train.rows)
    drawn = np.random.default_rng(seed).permutation(len(train.rows))[:count]
    return Probe(
        linear=linear_accuracy(Labelled(train.rows[drawn], train.labels[drawn]), test),
        cosine=neighbour_accuracy(train, test, k=k, metric="cosine"),
        euclidean=neighbour_accuracy(train, test, k=k, metric="euclidean"),
        labels=count,
        k=k,
        stderr=float(0.5 / np.sqrt(len(test.rows))),
    )


def neighbour_accuracy(train: Labelled, test: Labelled, *, k: int = 5, metric: Metric = "euclidean") -> float:
    """Return the share of test rows (M, F) whose class most of the k nearest training rows (N, F) have.

    Of classes with equally many votes the first counts. An embedding of length 0 has no angle: its cosine is 0.
    """
    from sklearn.neighbors import KNeighborsClassifier

    choose("metric", metric, METRICS)
    if not 1 <= k <= len(train.rows):
        raise UsageError(f"expected k of 1 to {len(train.rows)}, the training rows there are; {k} came")
    judge = KNeighborsClassifier(k, metric=metric, algorithm="brute").fit(train.rows, train.labels)
    return float(judge.score(test.rows, test.labels))


def linear_accuracy(train: Labelled, test: Labelled) -> float:
    """Return the test accuracy of a logistic regression (L2 penalty 1), its features standardised over `train`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(train.labels)) < 2:
        raise UsageError("a linear probe expects labelled rows of at least two classes")
    judge = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return float(judge.fit(train.rows.astype(np.float64), train.labels).score(test.rows, test.labels))

"""What a classifier takes for what."""

import numpy as np

from longflow.errors import UsageError
from longflow.figures.style import INK, PAPER, SEQUENTIAL, SMALL, Array, dress, sheet, to_png

MOST_WRITTEN = 20
"""Classes up to which counts are written into the cells."""


def confusion(counts: Array) -> bytes:
    """Draw counts (K, K) of events of each class (rows) that were taken for each (columns).

    A cell is coloured by its share of its row. Up to 20 classes, counts other than 0 are written in it.

    Returns:
        A PNG.

    Raises:
        UsageError: unless `counts` is a square of numbers of at least 0.
    """
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size or not (counts >= 0).all():
        raise UsageError(f"expected counts (K, K), each at least 0, got an array of shape {counts.shape}")
    classes = len(counts)
    side = float(np.clip(0.36 * classes, 2.2, 6.0))
    figure = sheet(side + 0.8, side + 0.7)
    axes = dress(figure.subplots(), x="guessed", y="class")
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap=SEQUENTIAL, vmin=0.0, vmax=1.0)
    for row, column in np.argwhere(counts) if classes <= MOST_WRITTEN else ():
        colour = PAPER if shares[row, column] > 0.5 else INK
        axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=SMALL - 2, color=colour)
    if classes <= MOST_WRITTEN:
        axes.set_xticks(range(classes))
        axes.set_yticks(range(classes))
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return to_png(figure)

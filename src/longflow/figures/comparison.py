"""A model beside its baselines."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from longflow.errors import UsageError
from longflow.figures.style import (
    ACCENT,
    INK,
    MUTED,
    SMALL,
    Array,
    dress,
    sheet,
    to_png,
)


def comparison(values: Mapping[str, tuple[float, float]], *, unit: str = "bits/dim") -> bytes:
    """Draw one horizontal bar per model; the first, the model in question, is coloured.

    Args:
        values: name -> (value, standard error), lower being better. A standard error of zero or not finite is left
            out; a value that is not finite (a histogram's on an empty bin) has no bar, only its label.
        unit: what the values count.

    Returns:
        A PNG.

    Raises:
        UsageError: if `values` is empty.
    """
    if not values:
        raise UsageError("expected at least one value to compare, got none")
    figure = sheet(5.6, 0.7 + 0.38 * len(values))
    axes = dress(figure.subplots(), x=unit)
    widths, errors = np.array([_drawable(*pair) for pair in values.values()]).T
    colours = [ACCENT] + ["#b9c2ce"] * (len(values) - 1)
    axes.barh(range(len(values)), widths, height=0.62, color=colours)
    seen = errors > 0
    axes.errorbar(widths[seen], np.flatnonzero(seen), xerr=errors[seen], fmt="none", ecolor=INK, capsize=2.5)
    for row, (value, _) in enumerate(values.values()):
        _label_bar(axes, row, value, errors[row])
    _finish_bars(axes, list(values), widths - errors, widths + errors)
    return to_png(figure)


def _drawable(value: float, error: float) -> tuple[float, float]:
    """Return a bar's length and the half length of its whisker, 0 for what cannot be drawn."""
    if not math.isfinite(value):
        return 0.0, 0.0
    return value, error if math.isfinite(error) and error > 0 else 0.0


def _label_bar(axes: Axes, row: int, value: float, error: float) -> None:
    """Write a bar's number right of it, and right of the axis where it points left."""
    number = f"{value:.3f}" if math.isfinite(value) else str(value).replace("inf", "∞")
    text = f"{number} ± {error:.3f}" if error else number
    end = max(value + error, 0.0) if math.isfinite(value) else 0.0
    axes.annotate(text, (end, row), (5, 0), textcoords="offset points", va="center", fontsize=SMALL, color=INK)


def _finish_bars(axes: Axes, names: list[str], starts: Array, ends: Array) -> None:
    """Name the bars, the first on top, and leave room for the numbers right of them."""
    low, high = min(0.0, float(starts.min())), max(0.0, float(ends.max()))
    room = (high - low) or 1.0
    axes.set_xlim(low - (0.05 * room if low else 0.0), high + 0.3 * room)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0, labelsize=SMALL, labelcolor=INK)
    axes.invert_yaxis()
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=MUTED, linewidth=0.6)

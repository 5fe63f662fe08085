"""What all pictures of points share: frames, colours and dots in the plane."""

import numpy as np
from matplotlib.axes import Axes

from longflow.errors import UsageError
from longflow.figures.style import Array, few_ticks, note

Extent = tuple[float, float, float, float]  # x_min, x_max, y_min, y_max


def check_points(points: Array) -> None:
    """Raise UsageError unless points have the shape (N, 2) and N is at least 1."""
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise UsageError(f"expected points of shape (N, 2), got {points.shape}")


def span(values: Array) -> tuple[float, float]:
    """Return limits that hold `values` (any shape) with a margin, but let far outliers fall outside.

    One exploding value must not squeeze all others into a dot: what lies further from the central 98 % than
    its own width is left out. Non-finite values are ignored; without any finite one the limits are -1 and 1.
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return -1.0, 1.0
    inner_low, inner_high = np.quantile(finite, (0.01, 0.99))
    width = inner_high - inner_low
    kept = finite[(finite >= inner_low - width) & (finite <= inner_high + width)]
    low, high = float(kept.min()), float(kept.max())
    margin = 0.05 * (high - low) or 0.5 * max(1.0, abs(high))
    return low - margin, high + margin


def inside(points: Array, extent: Extent) -> Array:
    """Return which of points (N, 2) lie in the frame, as booleans (N,)."""
    x, y = points.T
    return (x >= extent[0]) & (x <= extent[1]) & (y >= extent[2]) & (y <= extent[3])


def dots(axes: Axes, points: Array, colours: Array | str, *, alpha: float) -> None:
    """Draw points (N, 2) in one colour, or in colours (N, 4), the smaller the more there are."""
    area = np.clip(6000 / max(len(points), 1), 1.5, 14)
    axes.scatter(points[:, 0], points[:, 1], s=area, c=colours, alpha=alpha, linewidths=0)


def hues(points: Array) -> Array:
    """Return the angle of points (N, 2) around their mean as a fraction of a turn (N,)."""
    finite = points[np.isfinite(points).all(axis=1)]
    centre = finite.mean(axis=0) if len(finite) else np.zeros(2)
    x, y = np.where(np.isfinite(points), points, 0.0).T
    return np.arctan2(y - centre[1], x - centre[0]) / (2 * np.pi) + 0.5


def square_frame(axes: Axes, points: Array) -> Extent:
    """Frame points (N, 2) by a square with equal units on both axes, and return its edges."""
    (left, right), (low, high) = span(points[:, 0]), span(points[:, 1])
    half = max(right - left, high - low) / 2
    x, y = (left + right) / 2, (low + high) / 2
    axes.set(xlim=(x - half, x + half), ylim=(y - half, y + half), aspect="equal")
    few_ticks(axes)
    return x - half, x + half, y - half, y + half


def cloud(axes: Axes, points: Array, colours: Array, extent: Extent) -> None:
    """Draw points (N, 2) in colours (N, 4), and count those outside the frame."""
    shown = inside(points, extent)
    dots(axes, points[shown], colours[shown], alpha=0.75)
    if not shown.all():
        note(axes, f"{len(points) - shown.sum()} of {len(points)} outside")

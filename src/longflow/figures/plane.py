"""What all pictures of points share: frames, colours and dots in the plane."""

import numpy as np
from matplotlib.axes import Axes

from longflow.errors import UsageError
from longflow.figures.style import Array, note
from longflow.figures.ticks import rule

Extent = tuple[float, float, float, float]  # x_min, x_max, y_min, y_max

FLATTEST = 0.5  # height of a tight frame over its width; its inverse bounds the tallest
UNLIKE = 12.0  # from this ratio of two columns' widths on, they count as different units


def check_points(points: Array) -> None:
    """Raise UsageError unless points have the shape (N, 2) and N is at least 1."""
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise UsageError(f"expected points of shape (N, 2), got {points.shape}")


def span(values: Array) -> tuple[float, float]:
    """Return limits that hold `values` (any shape) with a margin, but let far outliers fall outside.

    One exploding value must not squeeze all others into a dot: what lies further from the central 98 % than
    its own width is left out. Non-finite values are ignored; without any finite one the limits are -1 and 1.
    """
    finite = values[np.isfinite(values)].astype(np.float64)
    if finite.size == 0:
        return -1.0, 1.0
    inner_low, inner_high = np.quantile(finite, (0.01, 0.99))
    width = inner_high - inner_low
    kept = finite[(finite >= inner_low - width) & (finite <= inner_high + width)]
    low, high = float(kept.min()), float(kept.max())
    margin = 0.05 * (high - low) or 0.5 * (abs(high) or 1.0)
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


def framed(points: Array, *, flattest: float = 1.0) -> Extent:
    """Return a frame around points (N, 2), its shorter side at least `flattest` of the longer: 1 for a square.

    Columns of quite different widths, such as kelvins and pascals, keep their own: equal units would hide one.
    """
    (left, right), (low, high) = span(points[:, 0]), span(points[:, 1])
    width, height = right - left, high - low
    if max(width, height) > UNLIKE * min(width, height):
        return left, right, low, high
    wide, tall = max(width, flattest * height) / 2, max(height, flattest * width) / 2
    x, y = (left + right) / 2, (low + high) / 2
    return x - wide, x + wide, y - tall, y + tall


def box(extent: Extent, longest: float) -> tuple[float, float]:
    """Return width and height in inches of axes with equal units, or of a square if those would be a strip."""
    width, height = extent[1] - extent[0], extent[3] - extent[2]
    if min(width, height) < 0.9 * FLATTEST * max(width, height):
        return longest, longest
    return longest * min(1.0, width / height), longest * min(1.0, height / width)


def set_frame(axes: Axes, extent: Extent, longest: float, *, names: tuple[str, str] = ("", "")) -> None:
    """Frame axes of at most `longest` inches by `extent`, with few ticks, and with equal units where sensible."""
    width, height = box(extent, longest)
    axes.set(aspect="auto", box_aspect=height / width)
    rule(axes, np.reshape(extent, (2, 2)), names, room=width, at_most=7 if longest > 2 else 3)


def cloud(axes: Axes, points: Array, colours: Array, extent: Extent) -> None:
    """Draw points (N, 2) in colours (N, 4), and count those outside the frame."""
    shown = inside(points, extent)
    dots(axes, points[shown], colours[shown], alpha=0.75)
    if not shown.all():
        note(axes, f"{len(points) - shown.sum()} of {len(points)} outside")

"""Pictures of samples: a cloud after every layer, scatter and corner plots of tables."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from longflow.errors import UsageError
from longflow.figures.plane import check_points, cloud, dots, hues, inside, span, square_frame
from longflow.figures.style import ACCENT, CYCLIC, MUTED, Array, dress, few_ticks, sheet, to_png

ACROSS = 4  # panels in a row of `layers`
MOST = 5  # columns that a corner plot shows
LONGEST = 20  # characters of a column's name that fit beside a panel of a corner plot

Limits = tuple[float, float]


def layers(clouds: Sequence[Array], names: Sequence[str]) -> bytes:
    """Draw the same points after each layer, a panel each: data becoming Gaussian layer by layer.

    A point keeps its colour, the angle at which it lies around the first cloud's mean.

    Args:
        clouds: arrays (N, 2) with rows in the same order, the data first.
        names: a title for each cloud.

    Returns:
        A PNG.

    Raises:
        UsageError: if there is no cloud, their shapes differ or the names do not match in number.
    """
    if not clouds or len(clouds) != len(names) or len({points.shape for points in clouds}) != 1:
        raise UsageError(
            f"expected clouds of one shape and a name for each, got {len(clouds)} clouds, {len(names)} names"
        )
    check_points(clouds[0])
    colours = CYCLIC(hues(clouds[0]))
    down = math.ceil(len(clouds) / ACROSS)
    across = math.ceil(len(clouds) / down)
    figure = sheet(max(3.2, 1.75 * across), 3.4 if across == 1 else 2.0 * down)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes, points, name in zip(panels, clouds, names, strict=False):
        cloud(dress(axes, title=name), points, colours, square_frame(axes, points))
    for axes in panels[len(clouds) :]:
        axes.set_axis_off()
    return to_png(figure)


def scatter(points: Array, *, columns: Sequence[str] = (), reference: Array | None = None) -> bytes:
    """Draw points (N, D): in the plane for D = 2, else a corner plot of the first five columns.

    Args:
        points: (N, D) with D at least 1, such as samples.
        columns: names of the D columns; by default x1, x2, ...
        reference: (M, D), such as data, drawn in grey beneath.

    Returns:
        A PNG.

    Raises:
        UsageError: if a shape is wrong or the names do not match in number.
    """
    _check_table(points, columns, reference)
    names = list(columns) or [f"x{d + 1}" for d in range(points.shape[1])]
    under = points[:0] if reference is None else reference
    if points.shape[1] == 2:
        return _plane(points, under, names)
    short = [name if len(name) <= LONGEST else name[: LONGEST - 1] + "…" for name in names]
    return _corner(points[:, :MOST], under[:, :MOST], short[:MOST])


def _check_table(points: Array, columns: Sequence[str], reference: Array | None) -> None:
    if points.ndim != 2 or 0 in points.shape:
        raise UsageError(f"expected points of shape (N, D), got {points.shape}")
    if len(columns) not in (0, points.shape[1]):
        raise UsageError(f"expected {points.shape[1]} column names or none, got {len(columns)}")
    if reference is not None and (reference.ndim != 2 or reference.shape[1] != points.shape[1]):
        raise UsageError(f"expected a reference of shape (M, {points.shape[1]}), got {reference.shape}")


def _plane(points: Array, under: Array, names: list[str]) -> bytes:
    """Draw points (N, 2) over others (M, 2) with equal units on both axes."""
    figure = sheet(4.0, 3.8)
    axes = dress(figure.subplots(), x=names[0], y=names[1])
    extent = square_frame(axes, np.concatenate([points, under]))
    dots(axes, under[inside(under, extent)], MUTED, alpha=0.4)
    cloud(axes, points, np.tile(to_rgba(ACCENT), (len(points), 1)), extent)
    return to_png(figure)


def _corner(points: Array, under: Array, names: list[str]) -> bytes:
    """Draw histograms on the diagonal and scatter plots of pairs below it."""
    size = len(names)
    side = max(3.0, 1.45 * size)
    figure = sheet(side, side)
    panels = figure.subplots(size, size, squeeze=False)
    limits = [span(np.concatenate([points[:, d], under[:, d]])) for d in range(size)]
    for (row, column), axes in np.ndenumerate(panels):
        dress(axes)
        for table, colour in ((under, MUTED), (points, ACCENT)):
            _corner_panel(axes, table, row, column, limits, colour)
        _corner_axes(axes, row, column, names, limits)
    return to_png(figure)


def _corner_panel(axes: Axes, table: Array, row: int, column: int, limits: Sequence[Limits], colour: str) -> None:
    """Draw one table (N, D) in the panel of two of its columns; above the diagonal nothing."""
    if column < row:
        pair = table[:, [column, row]]
        dots(axes, pair[inside(pair, (*limits[column], *limits[row]))], colour, alpha=0.4)
    elif column == row:
        counts, edges = np.histogram(table[:, row], bins=30, range=limits[row])
        axes.stairs(counts / max(len(table), 1), edges, fill=True, color=colour, alpha=0.5)


def _corner_axes(axes: Axes, row: int, column: int, names: list[str], limits: Sequence[Limits]) -> None:
    """Label the outer panels only, and hide those above the diagonal."""
    axes.set_visible(column <= row)
    few_ticks(axes, at_most=3)
    axes.set_xlim(*limits[column])
    axes.tick_params(labelbottom=row == len(names) - 1, labelleft=column == 0)
    if row == len(names) - 1:
        axes.set_xlabel(names[column])
    if column == row:
        axes.yaxis.set_visible(False)
        axes.spines["left"].set_visible(False)
        return
    axes.set_ylim(*limits[row])
    if column == 0:
        axes.set_ylabel(names[row])

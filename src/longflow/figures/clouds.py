"""Pictures of samples: a cloud after every layer, scatter and corner plots of tables."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from longflow.errors import UsageError
from longflow.figures.plane import (
    FLATTEST,
    Extent,
    box,
    check_points,
    cloud,
    dots,
    framed,
    hues,
    inside,
    set_frame,
    span,
)
from longflow.figures.style import ACCENT, CYCLIC, INK, SMALL, WARM, Array, dress, sheet, to_png
from longflow.figures.ticks import rule

ACROSS = 4  # panels in a row of `layers`
MOST = 5  # columns that a corner plot shows
ALIKE = 1.6  # a common frame of `layers` over the sides of each panel's own, at most
LONGEST = 20  # characters of a title that fit above a small panel; a column's name may have two lines


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
    for axes, points, name, extent in zip(panels, clouds, names, _shared_frames(clouds), strict=False):
        set_frame(dress(axes, title=_shortened(name, LONGEST)), extent, 1.3 if across > 1 else 2.6)
        axes.title.set_fontsize(SMALL)
        cloud(axes, points, colours, extent)
    for axes in panels[len(clouds) :]:
        axes.set_axis_off()
    return to_png(figure)


def _shortened(name: str, longest: int) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _shared_frames(clouds: Sequence[Array]) -> list[Extent]:
    """Return a frame for each cloud, the same for clouds that follow each other and are about as large."""
    own = np.array([framed(points) for points in clouds])
    frames, first = own.copy(), 0
    for k in range(1, len(own)):
        group = own[first : k + 1]
        whole = np.stack([group.min(axis=0), group.max(axis=0)])[[0, 1, 0, 1], range(4)]
        sides = group[:, 1::2] - group[:, ::2]
        if (whole[1::2] - whole[::2] > ALIKE * sides).any():
            first = k
        else:
            frames[first : k + 1] = whole
    return [(x0, x1, y0, y1) for x0, x1, y0, y1 in frames.tolist()]


def scatter(
    points: Array,
    *,
    columns: Sequence[str] = (),
    reference: Array | None = None,
    labels: tuple[str, str] = ("test data", "samples"),
) -> bytes:
    """Draw points (N, D): in the plane for D = 2, else a corner plot of the first five columns.

    A reference stands to the left of the points for D = 2, and in a colour of its own among them otherwise. It frames
    the picture, so that a few points far away do not squeeze it; how many lie outside is written there.

    Args:
        points: (N, D) with D at least 1, such as samples.
        columns: names of the D columns; by default x1, x2, ...
        reference: (M, D), such as data; one without rows counts as none.
        labels: what to call the reference and the points.

    Returns:
        A PNG.

    Raises:
        UsageError: if a shape is wrong or the names do not match in number.
    """
    _check_table(points, columns, reference)
    names = list(columns) or [f"x{d + 1}" for d in range(points.shape[1])]
    under = points[:0] if reference is None else reference
    if points.shape[1] == 2:
        return _plane(points, under, names, labels)
    return _corner(
        points[:, :MOST], under[:, :MOST], [_shortened(name, 2 * LONGEST - 6) for name in names[:MOST]], labels
    )


def _check_table(points: Array, columns: Sequence[str], reference: Array | None) -> None:
    if points.ndim != 2 or 0 in points.shape:
        raise UsageError(f"expected points of shape (N, D), got {points.shape}")
    if len(columns) not in (0, points.shape[1]):
        raise UsageError(f"expected {points.shape[1]} column names or none, got {len(columns)}")
    if reference is not None and (reference.ndim != 2 or reference.shape[1] != points.shape[1]):
        raise UsageError(f"expected a reference of shape (M, {points.shape[1]}), got {reference.shape}")


def _plane(points: Array, under: Array, names: list[str], labels: tuple[str, str]) -> bytes:
    """Draw points (N, 2), and if there is a reference (M, 2), that to the left of them in the same frame."""
    extent = framed(_steady(points, under), flattest=FLATTEST)
    width, height = box(extent, 3.0)
    tables = [(points, ACCENT, labels[1])]
    tables = [(under, WARM, labels[0]), *tables] if len(under) else tables
    figure = sheet(len(tables) * (width + 0.12) + 0.65, height + (0.85 if len(under) else 0.6))
    panels = figure.subplots(1, len(tables), squeeze=False).ravel()
    for axes, (table, colour, label) in zip(panels, tables, strict=True):
        dress(axes, title=label if len(under) else "")
        set_frame(axes, extent, 3.0, names=(names[0], names[1]))
        axes.yaxis.label.set_visible(axes is panels[0])
        axes.tick_params(labelleft=axes is panels[0])
        cloud(axes, table, np.tile(to_rgba(colour), (len(table), 1)), extent)
    return to_png(figure)


def _steady(points: Array, under: Array) -> Array:
    """Return the rows that frame the picture: the reference's, if it has any to go by."""
    return under if np.isfinite(under).any(axis=0).all() and len(under) else points


def _corner(points: Array, under: Array, names: list[str], labels: tuple[str, str]) -> bytes:
    """Draw histograms on the diagonal and scatter plots of pairs below it."""
    size = len(names)
    side = 3.0 if size == 1 else 1.7 * size
    figure = sheet(side, side)
    panels = figure.subplots(size, size, squeeze=False)
    limits = np.array([span(column) for column in _steady(points, under).T])
    for (row, column), axes in np.ndenumerate(panels):
        dress(axes)
        _corner_panel(axes, points, under, (row, column), limits)
        _corner_axes(axes, (row, column), names, limits)
    _corner_legend(figure, points, under, limits, labels)
    figure.align_labels()
    return to_png(figure)


def _corner_panel(axes: Axes, points: Array, under: Array, where: tuple[int, int], limits: Array) -> None:
    """Draw both tables in the panel of two of their columns; above the diagonal nothing."""
    row, column = where
    if column < row:
        _mixed_dots(axes, points[:, [column, row]], under[:, [column, row]], limits[[column, row]])
    elif column == row:
        for table, colour, filled in ((points, ACCENT, True), (under, WARM, False)):
            counts, edges = np.histogram(table[:, row], bins=30, range=tuple(limits[row]))
            if len(table):
                axes.stairs(counts / len(table), edges, fill=filled, color=colour, alpha=0.5 if filled else 1.0)


def _mixed_dots(axes: Axes, points: Array, under: Array, limits: Array) -> None:
    """Draw two tables (N, 2) in a shuffled order, lest the one drawn last hide the other."""
    pairs = np.concatenate([points, under])
    colours = np.repeat([to_rgba(ACCENT), to_rgba(WARM)], [len(points), len(under)], axis=0)
    order = np.random.default_rng(0).permutation(len(pairs))
    order = order[inside(pairs[order], tuple(limits.ravel()))]
    dots(axes, pairs[order], colours[order], alpha=0.55)


def _corner_axes(axes: Axes, where: tuple[int, int], names: list[str], limits: Array) -> None:
    """Label the outer panels only, and hide those above the diagonal."""
    row, column = where
    lowest, leftmost, diagonal = row == len(names) - 1, column == 0, column == row
    axes.set_visible(column <= row)
    shown = names[column] if lowest else "", names[row] if leftmost and not diagonal else ""
    up = axes.get_ylim() if diagonal else limits[row]
    rule(axes, np.array([limits[column], up]), shown, room=1.2, at_most=3)
    axes.xaxis.label.set_visible(lowest)
    axes.yaxis.label.set_visible(leftmost)
    axes.tick_params(labelbottom=lowest, labelleft=leftmost)
    if diagonal:
        axes.yaxis.set_visible(False)
        axes.spines["left"].set_visible(False)


def _corner_legend(figure: Figure, points: Array, under: Array, limits: Array, labels: tuple[str, str]) -> None:
    """Tell the colours apart, and how many samples lie outside the panels, in the empty upper right corner."""
    outside = len(points) - int(((points >= limits[:, 0]) & (points <= limits[:, 1])).all(axis=1).sum())
    count = f"\n({outside} of {len(points)} outside)" if outside else ""
    entries = [(labels[0], WARM), (labels[1] + count, ACCENT)] if len(under) else [(labels[1] + count, ACCENT)]
    if not len(under) and not outside:
        return
    figure.legend(
        handles=[Line2D([], [], color=colour, marker="o", linestyle="", label=label) for label, colour in entries],
        loc="outside upper right" if len(limits) == 1 else "upper right",
        fontsize=SMALL,
        labelcolor=INK,
        frameon=False,
    )

"""Pictures of functions of the plane: a density as heat, a map as a warped grid."""

from collections.abc import Sequence

import numpy as np
from matplotlib.collections import LineCollection

from longflow.errors import UsageError
from longflow.figures.plane import Extent, box, check_points, dots, framed, hues, inside, set_frame
from longflow.figures.style import (
    CYCLIC,
    FAINT,
    SEQUENTIAL,
    WARM,
    Array,
    dress,
    dress_colorbar,
    sheet,
    to_png,
)
from longflow.figures.ticks import ticks
from longflow.units import counted

LONGEST = 3.1  # inches of the longer side of a density


def density(
    log_prob: Array,
    *,
    extent: Extent,
    samples: Array | None = None,
    columns: Sequence[str] = ("x1", "x2"),
    brightest: float | None = None,
) -> bytes:
    """Draw exp(log_prob) as a heat map, with the mass inside the frame: about 1 for a normalised density.

    Args:
        log_prob: (H, W) in nats at the centres of a regular grid's cells, the first row at the lowest y. -inf is
            density 0; nan and +inf are errors of the model and are drawn in a colour of their own, and counted.
        extent: (x_min, x_max, y_min, y_max), the outer edges of the grid.
        samples: (N, 2), drawn on top; those outside the frame are left out.
        columns: names of the two axes.
        brightest: the density at the end of the scale, such as `brightest_of` several; by default that of this one.

    Returns:
        A PNG.

    Raises:
        UsageError: if a shape is wrong, the extent is empty or there are not two names.
    """
    _check_density(log_prob, extent, columns)
    heat = _heat(log_prob)
    most = (_bright(heat) if brightest is None else brightest) or 1.0
    width, height = box(extent, LONGEST)
    figure = sheet(width + 1.4, height + 0.75)
    axes = dress(figure.subplots(), title=_mass(heat, extent, int(heat.mask.sum())).replace("; ", "\n"))
    image = axes.imshow(heat, extent=extent, origin="lower", cmap=SEQUENTIAL, vmin=0, vmax=most)
    axes.spines[:].set(visible=True, color=FAINT)
    bar = figure.colorbar(image, cax=axes.inset_axes((1.04, 0, 0.06 * LONGEST / width, 1)), extend="max")
    places, texts, unit = ticks(0.0, most, at_most=6)
    bar.set_ticks(places.tolist(), labels=texts)
    dress_colorbar(bar, f"density {unit}".strip())
    if samples is not None:
        check_points(samples)
        dots(axes, samples[inside(samples, extent)], WARM, alpha=0.7)
    set_frame(axes, extent, LONGEST, names=(columns[0], columns[1]))
    return to_png(figure)


def brightest_of(log_probs: Sequence[Array]) -> float:
    """Return the end of one scale for densities, (H, W) in nats each, whose pictures are to be compared."""
    return max(_bright(_heat(log_prob)) for log_prob in log_probs)


def regular_grid(extent: Extent, *, lines: int = 21, points: int = 101) -> Array:
    """Return the lines of a regular grid, ready to be mapped: (2 · lines, points, 2), horizontal ones first.

    Args:
        extent: (x_min, x_max, y_min, y_max).
        lines: number of lines in each direction.
        points: number of points of a line.
    """
    x_min, x_max, y_min, y_max = extent
    along_x, height = np.meshgrid(np.linspace(x_min, x_max, points), np.linspace(y_min, y_max, lines))
    along_y, place = np.meshgrid(np.linspace(y_min, y_max, points), np.linspace(x_min, x_max, lines))
    return np.concatenate([np.stack([along_x, height], axis=-1), np.stack([place, along_y], axis=-1)])


def warped_grid(before: Array, after: Array, *, names: tuple[str, str] = ("data x", "latent z = f(x)")) -> bytes:
    """Draw lines and their image under a map side by side; a point keeps its colour, the angle it started at.

    Args:
        before: (L, P, 2), L lines of P points, such as `regular_grid` returns.
        after: (L, P, 2), the same points mapped. A piece of line with a non-finite end is left out.
        names: titles of the two panels.

    Returns:
        A PNG.

    Raises:
        UsageError: if the shapes are not (L, P, 2) with P at least 2, or differ.
    """
    if before.ndim != 3 or before.shape[1] < 2 or before.shape[2] != 2 or before.shape != after.shape:
        raise UsageError(f"expected two arrays of shape (L, P, 2), got {before.shape} and {after.shape}")
    turns = hues(before.reshape(-1, 2)).reshape(before.shape[:2])[:, 1:].ravel()
    figure = sheet(6.6, 3.6)
    for axes, lines, name in zip(figure.subplots(1, 2), (before, after), names, strict=True):
        pieces = np.stack([lines[:, :-1], lines[:, 1:]], axis=2).reshape(-1, 2, 2)
        set_frame(dress(axes, title=name), framed(lines.reshape(-1, 2)), 2.8)
        axes.add_collection(LineCollection(list(pieces), colors=CYCLIC(turns), linewidths=0.9))
    return to_png(figure)


def _check_density(log_prob: Array, extent: Extent, columns: Sequence[str]) -> None:
    if log_prob.ndim != 2 or log_prob.size == 0:
        raise UsageError(f"expected log-densities of shape (H, W), got {log_prob.shape}")
    if not (extent[0] < extent[1] and extent[2] < extent[3]):
        raise UsageError(f"expected an extent (x_min, x_max, y_min, y_max) that is not empty, got {extent}")
    if len(columns) != 2:
        raise UsageError(f"expected 2 column names, got {len(columns)}")


def _heat(log_prob: Array) -> np.ma.MaskedArray:
    """Return the density of each cell, those masked that have none."""
    broken = np.isnan(log_prob) | np.isposinf(log_prob)
    # A float's exponential ends near exp(709); without the bound one cell would overflow.
    return np.ma.masked_array(np.exp(np.minimum(np.where(broken, -np.inf, log_prob), 700.0)), broken)


def _mass(heat: np.ma.MaskedArray, extent: Extent, broken: int) -> str:
    """Say what the density adds up to on the grid, and how many cells have none."""
    area = (extent[1] - extent[0]) * (extent[3] - extent[2]) / heat.size
    text = f"mass inside the frame {np.ma.filled(heat, 0.0).sum() * area:.3g}"
    return f"{text}; {counted(broken, 'cell')} not finite" if broken else text


def _bright(heat: np.ma.MaskedArray) -> float:
    """Return the density drawn darkest: almost the highest, lest one spike bleach all the rest; 0 where all is."""
    return float(np.quantile(np.ma.filled(heat, 0.0), 0.998)) or float(np.ma.filled(heat, 0.0).max())

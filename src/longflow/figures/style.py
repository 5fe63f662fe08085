"""One look for every plot: colours, type and size, set on each axes by hand.

matplotlib's own settings are global to the process and would leak into the caller's plots (and, from a server's
threads, into each other), so nothing here touches them, nor pyplot.
"""

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

Array = NDArray[Any]

INK, MUTED, FAINT, PAPER = "#1f2430", "#646c7a", "#e4e6eb", "#ffffff"
ACCENT, WARM = "#2a5f9e", "#d9772b"
DPI = 150  # stored in the PNG: a page shows the plot at its physical size, crisp on dense screens
SMALL, NORMAL = 9.0, 10.0  # points

SEQUENTIAL = LinearSegmentedColormap.from_list(
    "longflow-sequential", [PAPER, "#d3e3f0", "#8fbbd9", "#3f7fb5", "#1f4e86", "#10264a"]
).with_extremes(bad="#c9b8b0")
CYCLIC = LinearSegmentedColormap.from_list(
    "longflow-cyclic", ["#2a5f9e", "#2c9c93", "#9aa82e", "#e2952f", "#cf4f5b", "#7d4f9f", "#2a5f9e"]
)


def sheet(width: float, height: float) -> Figure:
    """Return an empty figure of `width` × `height` inches whose parts arrange themselves without overlap."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor=PAPER)


def dress(axes: Axes, *, title: str = "", x: str = "", y: str = "") -> Axes:
    """Give an axes the house's spines, ticks, title and axis labels, and return it."""
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(MUTED)
        spine.set_linewidth(0.6)
    axes.tick_params(which="both", labelsize=SMALL, labelcolor=MUTED, color=MUTED, width=0.6, length=3)
    axes.set_title(title, fontsize=NORMAL, color=INK, loc="left")
    axes.set_xlabel(x, fontsize=SMALL, color=MUTED)
    axes.set_ylabel(y, fontsize=SMALL, color=MUTED)
    return axes


def note(axes: Axes, text: str, *, row: int = 0) -> None:
    """Write a muted remark inside the axes, at its upper right corner; `row` counts lines downwards."""
    axes.annotate(
        text,
        (1, 1),
        xycoords="axes fraction",
        xytext=(-3, -3 - 13 * row),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=SMALL,
        color=MUTED,
        bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 1},
    )


def dress_colorbar(bar: Colorbar, label: str) -> None:
    """Give a colour bar the house's type."""
    bar.outline.set_visible(False)
    bar.ax.tick_params(which="both", labelsize=SMALL, labelcolor=MUTED, color=MUTED, width=0.6, length=2)
    bar.set_label(label, fontsize=SMALL, color=MUTED)


def to_png(figure: Figure) -> bytes:
    """Return the figure as the bytes of a PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor=PAPER, bbox_inches=None, metadata={"Software": None})
    return buffer.getvalue()

"""Few, short tick labels; what they leave out, a power of ten or an offset, stands in the axis label."""

import math
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from longflow.figures.style import MUTED, SMALL, Array

CHARACTER = 0.58 * SMALL / 72  # inches that a digit takes, almost
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
LETTER = 0.06  # inches that a letter of a name takes, on average


def rule(axes: Axes, limits: Array, names: tuple[str, str], *, room: float, at_most: int = 5) -> None:
    """Set limits, ticks and labels of both axes.

    Args:
        axes: what to rule.
        limits: (2, 2), the lowest and highest x, the lowest and highest y.
        names: labels of x and y, to which a power of ten or an offset is added.
        room: the axes' width in inches, which the labels of x may fill without touching.
        at_most: largest number of ticks on either axis.
    """
    for axis, (low, high), name, width in zip((axes.xaxis, axes.yaxis), limits, names, (room, math.inf), strict=True):
        places, texts, unit = ticks(float(low), float(high), at_most=at_most, room=width)
        axis.set_ticks(places, texts)
        label = "\n".join(wrap(f"{name} {unit}", max(round(room / LETTER), 1)))
        axis.set_label_text(label, fontsize=SMALL, color=MUTED)
    axes.set(xlim=limits[0], ylim=limits[1])


def ticks(low: float, high: float, *, at_most: int, room: float = math.inf) -> tuple[Array, list[str], str]:
    """Return the places of ticks, their texts and the unit they are in: as many as have room, if possible two."""
    for intervals in range(max(at_most - 1, 1), 0, -1):
        places = np.asarray(MaxNLocator(intervals, steps=[1, 2, 5, 10]).tick_values(low, high))
        places = places[(places >= low) & (places <= high)]
        texts, unit = _texts(places)
        if sum(len(text) + 1 for text in texts) * CHARACTER <= room:
            break
    return places, texts, unit


def _texts(places: Array) -> tuple[list[str], str]:
    """Return the texts of ticks and their common unit, such as "(×10⁵)" or "− 1700000000"."""
    if len(places) < 2:
        return [f"{place:.3g}".replace("-", "−") for place in places], ""
    step = float(np.diff(places).min())
    offset = float(places[0]) if np.abs(places).max() > 9999 * step else 0.0
    power = _exponent(float(np.abs(places - offset).max()))
    power = power if not -2 <= power < 4 else 0
    decimals = max(0, power - _exponent(step))
    values = np.round((places - offset) / 10.0**power, decimals) + 0.0  # no minus zero
    unit = [f"{'−' if offset > 0 else '+'} {abs(offset):.12g}"] if offset else []
    unit += [f"(×10{str(power).translate(SUPERSCRIPT)})"] if power else []
    return [f"{value:.{decimals}f}".replace("-", "−") for value in values], " ".join(unit)


def _exponent(value: float) -> int:
    return math.floor(math.log10(value) + 1e-9)

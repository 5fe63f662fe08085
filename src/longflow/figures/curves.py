"""How a training went."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from longflow.figures.style import (
    ACCENT,
    FAINT,
    INK,
    PAPER,
    SMALL,
    WARM,
    Array,
    dress,
    note,
    sheet,
    to_png,
)


def learning_curve(
    records: Sequence[Mapping[str, Any]],
    *,
    train: str = "train",
    validation: str = "validation",
    unit: str = "bits/dim",
) -> bytes:
    """Draw the training and validation loss against the step, and mark the best epoch.

    Args:
        records: mappings with the key "step", if possible "epoch", and the two keys named next, either of which may be
            missing or None in any record. Non-finite values are left out.
        train: key of the training loss; lower is better.
        validation: key of the validation loss; its lowest value is the best.
        unit: what both count, such as "bits/dim", or "nats per event" for continuous data.

    Returns:
        A PNG.
    """
    figure = sheet(5.6, 3.1)
    axes = dress(figure.subplots(), x="step", y=unit)
    trained, validated = _series(records, train), _series(records, validation)
    _draw_series(axes, trained, color=ACCENT, label="train")
    _draw_series(axes, validated, color=WARM, label="validation")
    if validated.size:
        _mark_best(axes, records, *validated[validated[:, 1].argmin()])
    _finish_curve(axes, np.concatenate([trained[:, 1], validated[:, 1]]))
    return to_png(figure)


def _series(records: Sequence[Mapping[str, Any]], key: str) -> Array:
    """Return the (step, value) pairs (n, 2) of the records whose `key` holds a finite number."""
    pairs = [(r["step"], r[key]) for r in records if r.get(key) is not None and math.isfinite(r[key])]
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)


def _draw_series(axes: Axes, series: Array, *, color: str, label: str) -> None:
    if series.size:
        marker = "." if len(series) <= 60 else ""
        axes.plot(series[:, 0], series[:, 1], color=color, linewidth=1.3, marker=marker, markersize=4, label=label)


def _mark_best(axes: Axes, records: Sequence[Mapping[str, Any]], step: float, value: float) -> None:
    epoch = next((record.get("epoch") for record in records if record["step"] == step), None)
    where = f"step {step:,.0f}" if epoch is None else f"epoch {epoch:g}"
    axes.axvline(step, color=WARM, linewidth=0.8, linestyle=(0, (3, 3)))
    label = f"best {value:.3f} at {where}"
    axes.plot([step], [value], "o", color=WARM, markeredgecolor=PAPER, markersize=7, label=label)


def _finish_curve(axes: Axes, values: Array) -> None:
    """Set limits and legend; a first loss far above all others may leave the picture, for it would flatten them."""
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    if values.size == 0:
        note(axes, "no finite value recorded")
        return
    low, ninth = float(values.min()), float(np.quantile(values, 0.9))
    high = min(float(values.max()), 2 * ninth - low)
    margin = 0.06 * (high - low) or 0.05 * max(1.0, abs(high))
    axes.set_ylim(low - margin, high + margin)
    axes.legend(loc="upper right", fontsize=SMALL, labelcolor=INK, facecolor=PAPER, edgecolor="none")

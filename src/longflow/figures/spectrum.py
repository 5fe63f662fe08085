"""The spectrum of a scale layer: which latent dimensions matter."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from longflow.errors import UsageError
from longflow.figures.style import (
    ACCENT,
    SEQUENTIAL,
    Array,
    dress,
    dress_colorbar,
    note,
    sheet,
    to_png,
)


def spectrum(sigma: Array, *, shape: tuple[int, ...] | None = None) -> bytes:
    """Draw the scales σ_d of a scale layer, sorted, on a logarithmic axis.

    σ_d is the standard deviation of latent dimension d before the layer scales it to 1, the inverse of its factor S_dd
    (Dinh, Krueger and Bengio, "NICE", 2015, section 3.3): where it is small the dimension has collapsed and matters
    little.

    Args:
        sigma: (D,). Zeros, negative and non-finite values are drawn at the edge of the others, and counted.
        shape: (C, H, W) of the latent: if given, the map of σ_d by position (geometric mean over channels) is drawn
            next to the curve. A shape of any other length is a vector, which has no map.

    Returns:
        A PNG.

    Raises:
        UsageError: if `sigma` is not a vector or does not fill `shape`.
    """
    if sigma.ndim != 1 or sigma.size == 0 or (shape is not None and math.prod(shape) != sigma.size):
        raise UsageError(f"expected σ of shape (D,) filling {shape}, got {sigma.shape}")
    if shape is None or len(shape) != 3:
        figure = sheet(4.6, 2.9)
        _draw_ranks(figure.subplots(), sigma)
        return to_png(figure)
    figure = sheet(6.6, 2.9)
    left, right = figure.subplots(1, 2, width_ratios=[1.35, 1])
    _draw_ranks(left, sigma)
    _draw_map(figure, right, _positive(sigma).reshape(shape))
    return to_png(figure)


def _positive(sigma: Array) -> Array:
    """Return σ in float64 with what has no logarithm moved to the smallest or largest value that has one."""
    values = sigma.astype(np.float64)
    good = values[np.isfinite(values) & (values > 0)]
    low, high = (good.min(), good.max()) if good.size else (1.0, 1.0)
    return np.clip(np.nan_to_num(values, nan=low, posinf=high, neginf=low), low, high)


def _log_limits(values: Array) -> tuple[float, float]:
    """Return limits around positive values with a margin in the logarithm, at least half a decade in all."""
    margin = max(0.25 - 0.5 * math.log10(values.max() / values.min()), 0.05)
    return float(values.min() * 10**-margin), float(values.max() * 10**margin)


def _draw_ranks(axes: Axes, sigma: Array) -> None:
    """Draw σ (D,) by rank, and count what has no logarithm."""
    dress(axes, title=r"$\sigma_d$, sorted", x="rank of latent dimension $d$", y=r"$\sigma_d$")
    ranks, ranked = np.arange(1, sigma.size + 1), np.sort(_positive(sigma))[::-1]
    axes.set(yscale="log", ylim=_log_limits(ranked))
    axes.fill_between(ranks, axes.get_ylim()[0], ranked, color=ACCENT, alpha=0.12, linewidth=0)
    axes.plot(ranks, ranked, color=ACCENT, linewidth=1.5, marker="." if sigma.size < 100 else "", markersize=4)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    note(axes, r"small $\sigma_d$: collapsed, unimportant")
    odd = int(np.count_nonzero(~(np.isfinite(sigma) & (sigma > 0))))
    if odd:
        note(axes, f"{odd} of {sigma.size} not positive and finite", row=1)


def _draw_map(figure: Figure, axes: Axes, sigma: Array) -> None:
    """Draw σ (C, H, W) by position."""
    mean = np.exp(np.log(sigma).mean(axis=0))
    dress(axes, title=r"$\sigma_d$ by position")
    low, high = _log_limits(mean)
    image = axes.imshow(mean, cmap=SEQUENTIAL, norm=LogNorm(low, high), interpolation="nearest")
    axes.set_axis_off()
    dress_colorbar(figure.colorbar(image, ax=axes, shrink=0.85, pad=0.03), "")

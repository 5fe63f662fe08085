"""Units of likelihood: nats for one event, bits per dimension, and the constant between them."""

import math
from typing import TypeVar

import numpy as np
from torch import Tensor

Number = TypeVar("Number", float, Tensor)


def bits_per_dim(nats: Number, dims: int, bin_width: float = 1.0) -> Number:
    """Turn a log-density in nats into bits per dimension of the discrete data.

    A density p of the dequantised data gives the discrete value at least the mass p · bin_width^dims, so

        bits/dim = -(log p + dims · log bin_width) / (dims · log 2).

    `bin_width` is the size of one grey level in the units of the density: 1 in the units of the stored
    levels (every longflow model), 1/256 for 8-bit data scaled to [0, 1], 2/256 for [-1, 1].
    """
    return -(nats / dims + math.log(bin_width)) / math.log(2)


def nats(bits: Number, dims: int) -> Number:
    """Turn bits per dimension, in unit bins, back into minus nats for one event: `bits_per_dim`'s sign is a loss's."""
    return bits * dims * math.log(2)


def standard_error(values: np.ndarray) -> float | None:
    """Return the standard error of the mean of independent values; None for a single one, which tells none."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def counted(n: int, thing: str, things: str | None = None) -> str:
    """Return a number of things in words: "1 event", "1,000 events"; `things` where the plural is no s."""
    return f"{n:,} {thing if n == 1 else things or thing + 's'}"


def with_error(value: float, error: float | None, form: str) -> str:
    """Return a value and its standard error in words, each in the form given; the value alone where there is none."""
    return f"{value:{form}}" if error is None else f"{value:{form}} ± {error:{form}}"

"""The checks that builders share."""

import math
from typing import Any

from longflow.errors import UsageError
from longflow.units import counted


def at_least(model: str, least: int, **options: Any) -> None:
    """Raise UsageError unless each option is a whole number of at least `least`; None is left to the builder."""
    for name, value in options.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise UsageError(f"{model} expects {name} to be a whole number, {name} >= {least}; {value!r} came")


def scales_of(model: str, shape: tuple[int, ...], asked: int | None, most: int) -> int:
    """Return the number of scales of pictures (C, H, W): those asked for, or as many as the sides allow up to `most`.

    Raises UsageError, naming the nearest sides that would do, unless both sides divide by 2^scales.
    """
    allowed = min((side & -side).bit_length() - 1 for side in shape[1:])
    chosen = min(allowed, most) if asked is None else asked
    if not 1 <= chosen <= allowed:
        unit = 2 ** max(1, chosen)
        fits = ["x".join(str(max(1, side // unit + k) * unit) for side in shape[1:]) for k in (0, 1)]
        raise UsageError(
            f"{model} expects sides divisible by 2^scales, {unit} for {counted(max(1, chosen), 'scale')}:"
            f" {shape[1]}x{shape[2]} can be halved {counted(allowed, 'time')};"
            f" {' or '.join(dict.fromkeys(fits))} would do"
        )
    return chosen


def vector_or_picture(model: str, shape: tuple[int, ...]) -> None:
    """Raise UsageError unless events are vectors (D,), D >= 2, or pictures (C, H, W)."""
    if len(shape) not in (1, 3) or math.prod(shape) < 2:
        raise UsageError(f"{model} expects events of shape (D,), D >= 2, or (C, H, W); {shape} came")

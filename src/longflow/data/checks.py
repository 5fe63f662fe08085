"""What a density needs of numbers: that they are finite in float32 and vary; and that they can be read at all."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from longflow.errors import UsageError
from longflow.units import counted


def feature(k: int, columns: tuple[str, ...] | None) -> str:
    """Name the feature at flat index `k` in a message."""
    return f"feature {k}" if columns is None else f"column {columns[k]!r}"


def as_float32(x: np.ndarray) -> np.ndarray:
    """Convert to float32; what float32 cannot hold becomes infinite, without a warning, for `require_finite`."""
    with np.errstate(over="ignore"):
        return x.astype(np.float32, copy=False)


def require_finite(
    source: str,
    x: np.ndarray,
    columns: tuple[str, ...] | None = None,
    place: Callable[[int], str] = "row {}".format,
) -> None:
    """Refuse NaN and infinity.

    Args:
        source: what the message calls the data.
        x: float array (N, *shape).
        columns: names of the features of a table.
        place: tells where in the source the row of a given index (from 0) stands.

    Raises:
        UsageError: says how many values are bad, and the row and the feature of the first.
    """
    bad = np.argwhere(~np.isfinite(x.reshape(len(x), math.prod(x.shape[1:]))))
    if len(bad):
        row, k = (int(index) for index in bad[0])
        raise UsageError(
            f"{source}: {counted(len(bad), 'value')} missing, infinite or beyond float32, "
            f"the first at {place(row)}, {feature(k, columns)}; drop or fill them"
        )


def require_varied(source: str, x: np.ndarray, columns: tuple[str, ...] | None = None) -> None:
    """Refuse a feature that is constant over the rows of `x` (N, *shape): its density is not finite.

    Raises:
        UsageError: names the first such feature.
    """
    constant = np.flatnonzero(x.min(axis=0) == x.max(axis=0))
    if len(constant):
        which = feature(int(constant[0]), columns)
        more = f" ({len(constant) - 1} more like it)" if len(constant) > 1 else ""
        raise UsageError(f"{source}: {which} has the same value in every row of the train split; drop it{more}")


def require_resolved(source: str, wide: np.ndarray, x: np.ndarray, columns: Sequence[str] | None = None) -> None:
    """Refuse a column that varies in float64, but not in float32.

    Args:
        source: what the message calls the data.
        wide: the values (N, D) as they came.
        x: the same as float32.
        columns: names of the D columns, or None.

    Raises:
        UsageError: names the first such column, its size and its range.
    """
    if not len(x):
        return
    for k in np.flatnonzero(x.min(axis=0) == x.max(axis=0)):
        low, high = wide[:, k].min(), wide[:, k].max()
        if low < high:
            raise UsageError(
                f"{source}: {feature(int(k), names_of(columns, x.shape[1]))} varies by {high - low:g} about"
                f" {low:.9g}, which float32 cannot tell apart; subtract a number from it"
            )


def names_of(columns: Sequence[str] | None, features: int) -> tuple[str, ...]:
    """Return the names of the columns of a table; x1 … xD where it has none."""
    return tuple(columns) if columns is not None else tuple(f"x{k}" for k in range(1, features + 1))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Tell in one line that the file which is decoded inside this context cannot be read.

    Raises:
        UsageError: in place of whatever was raised; decoders meet a damaged file with errors of any kind.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        reason = " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
        raise UsageError(f"{path} cannot be read: {reason}") from error

"""From named columns to content: what CSV and Parquet have in common."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from longflow.data.checks import as_float32, require_finite, require_resolved
from longflow.data.content import Content
from longflow.errors import UsageError


def table(
    path: Path, columns: Sequence[str], cells: np.ndarray, place: Callable[[int], str], dtypes: Sequence[str]
) -> Content:
    """Make continuous content of a table; values are rounded to float32.

    Args:
        path: the file.
        columns: the D names.
        cells: float64 array (N, D), NaN where a cell is missing.
        place: tells where in the file the row of a given index stands.
        dtypes: the types of the columns.

    Raises:
        UsageError: there are no columns, a name comes twice, a value is not finite, or float32 cannot tell the values
            of a column apart.
    """
    if not columns:
        raise UsageError(f"{path} has no columns")
    twice = [name for k, name in enumerate(columns) if name in columns[:k]]
    if twice:
        raise UsageError(f"{path} has two columns named {twice[0]!r}")
    x = as_float32(cells)
    require_finite(str(path), x, tuple(columns), place)
    require_resolved(str(path), cells, x, columns)
    types = dict(zip(columns, dtypes, strict=True))
    return Content(path.name, {"train": x}, levels=None, columns=tuple(columns), dtypes=types, place=place)


def not_a_number(path: Path, place: str, column: str, text: str) -> UsageError:
    """Tell which cell of a table is text."""
    return UsageError(f"{path}, {place}, column {column!r}: {text[:40]!r} is not a number")

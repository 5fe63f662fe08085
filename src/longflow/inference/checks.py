"""Rows that are refused, with the number of the first."""

from torch import Tensor

from longflow.errors import UsageError
from longflow.units import counted


def all_rows(right: Tensor, expected: str) -> None:
    """Raise UsageError unless all of (B,) are true; `expected` says of what."""
    rows = (~right).nonzero().flatten().tolist()
    if rows:
        raise UsageError(f"expected {expected}; not so in {counted(len(rows), 'row')}, the first is row {rows[0]}")


def finite_rows(name: str, values: Tensor) -> None:
    """Raise UsageError unless all numbers of (B, ...) are finite."""
    all_rows(values.isfinite().unsqueeze(1).flatten(1).all(1), f"finite {name}")

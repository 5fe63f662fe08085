"""Tables as the user has them: columns by name, of the types that the source has, as CSV or Parquet."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longflow.errors import UsageError
from longflow.files import write_bytes, write_text

SUFFIXES = (".csv", ".parquet")
LARGEST = 2**53
Columns = Mapping[str, np.ndarray]


def columns_of(rows: np.ndarray, names: Sequence[str], config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the columns of rows (N, D) by name, each of the type that its values had where the run's data come from.

    Whole numbers and booleans only where all values are such and fit: samples of a column that is taken as real are
    real.
    """
    types = config.get("data", {}).get("dtypes") or {}
    return {name: _typed(rows[:, k], types.get(name)) for k, name in enumerate(names)}


def _typed(values: np.ndarray, name: str | None) -> np.ndarray:
    dtype = np.dtype(name or values.dtype)
    if dtype.kind == "f":
        return values.astype(dtype)
    if not ((values == np.rint(values)) & (np.abs(values) < LARGEST)).all():
        return values.astype(np.float64)
    cast = values.astype(np.int64)
    kept = cast.astype(dtype)
    return kept if (kept.astype(np.int64) == cast).all() else cast


def write_table(path: Path, columns: Columns) -> None:
    """Write columns of one length (N,) with their names, as CSV or, by pandas, as Parquet, as the suffix says.

    Floats of a CSV have nine significant digits, from which float32 comes back as it was.
    """
    if path.suffix == ".parquet":
        write_bytes(path, _parquet(path, columns))
    else:
        write_text(path, _text(columns))


def check_table(path: Path) -> None:
    """Raise UsageError where Parquet is asked for and the packages that write it are missing."""
    if path.suffix != ".parquet":
        return
    try:
        import pandas  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{path}: writing Parquet needs pandas and pyarrow: pip install longflow[tables]") from error


def _text(columns: Columns) -> str:
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(_cells(values) for values in columns.values()), strict=True))
    return lines.getvalue()


def _cells(values: np.ndarray) -> list[str]:
    if values.dtype.kind == "b":
        return ["true" if v else "false" for v in values]
    return [f"{v:.9g}" for v in values] if values.dtype.kind == "f" else [str(v) for v in values]


def _parquet(path: Path, columns: Columns) -> bytes:
    check_table(path)
    import pandas

    content = io.BytesIO()
    pandas.DataFrame(dict(columns)).to_parquet(content, engine="pyarrow", index=False)
    return content.getvalue()

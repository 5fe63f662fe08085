"""Tables as Parquet files, by pandas and pyarrow, which `longflow[tables]` installs."""

from pathlib import Path
from typing import Any

import numpy as np

from longflow.data.checks import reading
from longflow.data.content import Content
from longflow.data.table import not_a_number, table
from longflow.errors import UsageError


def read_parquet(path: Path) -> Content:
    """Read a table; booleans and integers become float32, and the index of a saved pandas frame is no column.

    Raises:
        UsageError: pandas or pyarrow is missing, the file cannot be read, a cell is text, a date or missing, or there
            are no columns.
    """
    frame = _frame(path)
    columns = [str(name) for name in frame.columns]
    values = [_column(path, name, frame.iloc[:, k]) for k, name in enumerate(columns)]
    dtypes = [_dtype(frame.dtypes.iloc[k]) for k in range(len(columns))]
    cells = np.stack(values, axis=1) if values else np.empty((len(frame), 0))
    return table(path, columns, cells, "row {}".format, dtypes)


def _frame(path: Path) -> Any:
    try:
        import pandas
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{path}: reading Parquet needs pandas and pyarrow: pip install longflow[tables]") from error
    with reading(path):
        return pandas.read_parquet(path, engine="pyarrow")


def _column(path: Path, name: str, series: Any) -> np.ndarray:
    """Return the float64 values (N,) of a pandas column, NaN where missing."""
    present = series.dropna()
    if series.dtype.kind not in "biuf" and len(present):
        raise not_a_number(path, f"row {series.notna().argmax()}", name, str(present.iloc[0]))
    if len(present) == 0:
        return np.full(len(series), np.nan)
    values: np.ndarray = series.to_numpy(dtype=np.float64, na_value=np.nan)
    return values


def _dtype(dtype: Any) -> str:
    """Return the NumPy name of the type of a pandas column, of pandas' own nullable types and pyarrow's too."""
    kind = "bool" if dtype.kind == "b" else dtype.name.split("[")[0].lower()
    return np.dtype(kind).name if dtype.kind in "biuf" else "float64"

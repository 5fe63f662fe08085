"""Data of the user's own: the kinds of files that can be read."""

from collections.abc import Callable
from pathlib import Path

from longflow.data.arrays import read_arrays
from longflow.data.content import Content
from longflow.data.delimited import read_csv
from longflow.data.folder import read_folder
from longflow.data.parquet import read_parquet
from longflow.errors import UsageError

READERS: dict[str, Callable[[Path], Content]] = {
    ".npz": read_arrays,
    ".npy": read_arrays,
    ".csv": read_csv,
    ".parquet": read_parquet,
}


def read(path: str | Path) -> Content:
    """Read a folder of pictures or a file, every row in the order of the source.

    Raises:
        UsageError: there is no such file, or it cannot be read; see the readers.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return read_folder(path)
    if not path.exists():
        raise UsageError(f"there is no file or folder {path}")
    if path.suffix.lower() not in READERS:
        raise UsageError(f"cannot read {path}; expected a folder of pictures or a file {', '.join(READERS)}")
    return READERS[path.suffix.lower()](path)

"""Data of the user's own: the kinds of files that can be read."""

from collections.abc import Callable, Sequence
from pathlib import Path

from longflow.data.arrays import read_arrays, with_contexts
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


def read(path: str | Path, context: Sequence[str] = ()) -> Content:
    """Read a folder of pictures or a file, every row in the order of the source.

    Args:
        path: what to read.
        context: columns of a table, or the array of an `.npz`, that the rows are conditioned on.

    Raises:
        UsageError: there is no such file, or it cannot be read (see the readers), or it lacks such a context.
    """
    path = Path(path).expanduser()
    content = _content(path)
    if not context:
        return content
    if content.columns is not None:
        return content.conditioned(context)
    if path.suffix.lower() == ".npz":
        return with_contexts(path, content, context)
    raise UsageError(f"contexts are columns of a table (.csv, .parquet) or an array of an .npz; {path} is neither")


def _content(path: Path) -> Content:
    if path.is_dir():
        return read_folder(path)
    if not path.exists():
        raise UsageError(f"there is no file or folder {path}")
    if path.suffix.lower() not in READERS:
        raise UsageError(f"cannot read {path}; expected a folder of pictures or a file {', '.join(READERS)}")
    return READERS[path.suffix.lower()](path)

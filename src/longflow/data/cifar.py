"""CIFAR-10 (Krizhevsky, 2009) in its binary version."""

import shutil
import tarfile
from pathlib import Path

import numpy as np

from longflow.data.checks import reading
from longflow.data.dataset import Dataset
from longflow.data.download import fetch, home
from longflow.errors import UsageError

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
FOLDER = "cifar-10-batches-bin"
BATCHES = tuple(f"data_batch_{k}.bin" for k in range(1, 6))
TEST = "test_batch.bin"
BATCH_ROWS, VALIDATION = 10_000, 5_000
ROW = 1 + 3 * 32 * 32


def cifar10() -> Dataset:
    """Load 60,000 photographs of ten kinds of things, 3x32x32, 256 levels.

    `validation` is the last 5,000 of the 50,000 training pictures. A test file with only a part of the 10,000 test
    pictures is accepted.

    Raises:
        UsageError: the files are neither there nor to be had, or are damaged.
    """
    folder = home(FOLDER)
    missing = [name for name in (*BATCHES, TEST) if not (folder / name).is_file()]
    if missing:
        _unpack(fetch("cifar10", missing[0], URL, MD5, folder), folder)
    train = np.concatenate([_rows(folder / name, fewest=BATCH_ROWS) for name in BATCHES])
    rows = {"train": train[:-VALIDATION], "validation": train[-VALIDATION:], "test": _rows(folder / TEST, fewest=1)}
    splits = {split: x[:, 1:].reshape(-1, 3, 32, 32) for split, x in rows.items()}
    return Dataset("cifar10", splits, 256, {split: x[:, 0].astype(np.int64) for split, x in rows.items()})


def _rows(path: Path, fewest: int) -> np.ndarray:
    """Return uint8 (N, 3073): the label, then the red, the green and the blue plane, row by row."""
    with reading(path):
        values = np.fromfile(path, np.uint8)
    n, rest = divmod(values.size, ROW)
    if rest or not fewest <= n <= BATCH_ROWS:
        raise UsageError(
            f"{path} is damaged: it has {values.size} bytes; expected {ROW} for each of {BATCH_ROWS} pictures"
        )
    rows = values.reshape(n, ROW)
    if rows[:, 0].max() > 9:
        raise UsageError(f"{path} is damaged: it has the label {rows[:, 0].max()}; expected 0 … 9")
    return rows


def _unpack(archive: Path, folder: Path) -> None:
    """Write the six known files, and nothing else: no path in an archive can lead out of the folder."""
    with reading(archive), tarfile.open(archive) as tar:
        for name in (*BATCHES, TEST):
            _extract(tar, f"{FOLDER}/{name}", folder / name)
    archive.unlink()


def _extract(tar: tarfile.TarFile, member: str, file: Path) -> None:
    """Write one file under a temporary name first: an interrupted run leaves no half of it."""
    source = tar.extractfile(member)
    if source is None:
        raise UsageError(f"{member} is not a file in the archive")
    partial = file.with_suffix(".part")
    with partial.open("wb") as target:
        shutil.copyfileobj(source, target)
    partial.replace(file)

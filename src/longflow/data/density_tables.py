"""The five data sets on which densities of tables are compared, prepared as MAF does (Papamakarios et al. 2017).

They are large and are not downloaded: the files are those of the authors' archive (zenodo.org/records/1161203), in a
folder of `$LONGFLOW_DATA` each. Every split is in standard deviations of the training rows, as are the papers' nats.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from longflow.data.checks import as_float32, reading
from longflow.data.dataset import Dataset
from longflow.data.download import home
from longflow.errors import UsageError
from longflow.units import counted

ARCHIVE = "zenodo.org/records/1161203"
SEED = 42
POWER_COLUMNS = 8
GAS_FIRST = 3
"""The first sensor, after the time and two concentrations."""

MOST_ALIKE = 0.98
MOST_REPEATS = 5
Splits = tuple[np.ndarray, np.ndarray, np.ndarray]


def power() -> Dataset:
    """Load the electricity of a household by the minute, 6 columns.

    Reactive power and intensity, the second and the fourth of the file's eight columns, are left out; uniform noise of
    the last digit is added, but to the time of the day, the last. Rows are shuffled, and noise is drawn, by NumPy's
    legacy generator of seed 42, hence are those of the paper.
    """
    rng = np.random.RandomState(SEED)
    path = _found("power", "data.npy")
    x = _numbers(path)
    if x.shape[1] != POWER_COLUMNS:
        raise UsageError(f"{path} has {counted(x.shape[1], 'column')}; expected {POWER_COLUMNS}")
    rng.shuffle(x)
    x = np.delete(x, (1, 3), axis=1)
    voltage, active, metering = (width * rng.rand(len(x), k) for width, k in ((0.01, 1), (0.001, 1), (1, 3)))
    noise = np.hstack((active, voltage, metering, np.zeros((len(x), 1))))
    return _made("power", _standardised(_tenths(x + noise)))


def gas() -> Dataset:
    """Load the readings of 16 gas sensors in a mixture of ethylene and CO, of which 8 are left.

    Of any two sensors whose correlation is above 0.98 one is left out: again and again the first that has such a
    fellow. Rows are in standard deviations of all rows, the test rows included, as in the paper.

    The paper's rows are those of the archive's ethylene_CO.pickle, which is not read, as a pickle may run anything:
    save it as .parquet, .npy or .csv. The public ethylene_CO.txt is read too, but has four times as many rows, of which
    the archive has a random quarter: likelihoods are then comparable to the paper's by and large only.
    """
    path = _found("gas", *(f"ethylene_CO.{suffix}" for suffix in ("parquet", "npy", "csv", "txt")))
    x = _numbers(path)[:, GAS_FIRST:]
    while len(alike := np.flatnonzero((np.atleast_2d(np.corrcoef(x, rowvar=False)) > MOST_ALIKE).sum(1) > 1)):
        x = np.delete(x, alike[0], axis=1)
    name = "gas (all rows of the public text)" if path.suffix == ".txt" else "gas"
    return _made(name, _tenths((x - x.mean(0)) / x.std(0, ddof=1)))


def hepmass() -> Dataset:
    """Load collisions that make particles of mass 1000, 21 columns.

    They are the positive class of the training and the test file; columns beyond those of the training file are left
    out, and columns whose least value comes more than five times.
    """
    files = [_numbers(_found("hepmass", f"1000_{split}.csv")) for split in ("train", "test")]
    train, test = (x[x[:, 0] == 1, 1 : files[0].shape[1]] for x in files)
    mean, std = train.mean(0), train.std(0, ddof=1)
    train, test = (train - mean) / std, (test - mean) / std
    kept = (train == train.min(0)).sum(0) <= MOST_REPEATS
    n = len(train) // 10
    return _made("hepmass", (train[:-n, kept], train[-n:, kept], test[:, kept]))


def miniboone() -> Dataset:
    """Load events of a neutrino detector, 43 columns, from which the archive has outliers removed."""
    x = _numbers(_found("miniboone", "data.npy"))
    return _made("miniboone", _standardised(_tenths(x)))


def bsds300() -> Dataset:
    """Load 8x8 patches of natural pictures less their mean and last pixel, 63 columns, as they are."""
    path = _found("BSDS300", "BSDS300.hdf5", source="bsds300")
    try:
        import h5py
    except ImportError as error:
        raise UsageError(f"bsds300: reading {path} needs h5py: pip install longflow[tables]") from error
    with reading(path), h5py.File(path, "r") as file:
        train, validation, test = (np.asarray(file[split]) for split in ("train", "validation", "test"))
    return _made("bsds300", (train, validation, test))


def _tenths(x: np.ndarray) -> Splits:
    """Cut the last tenth of the rows as the test, and the last tenth of those left as the validation split."""
    left = len(x) - len(x) // 10
    n = left - left // 10
    return x[:n], x[n:left], x[left:]


def _standardised(splits: Splits) -> Splits:
    known = np.concatenate(splits[:2])
    mean, std = known.mean(0), known.std(0)
    train, validation, test = ((x - mean) / std for x in splits)
    return train, validation, test


def _made(name: str, splits: Splits) -> Dataset:
    train, validation, test = map(as_float32, splits)
    return Dataset(name, {"train": train, "validation": validation, "test": test}, levels=None)


def _found(folder: str, *names: str, source: str | None = None) -> Path:
    """Return the first of the files that is there.

    Raises:
        UsageError: none is; says where one is looked for, and where it is to be had.
    """
    place = home(folder)
    for name in names:
        if (place / name).is_file():
            return place / name
    advice = "; a pickle is not read: save it as .parquet or .npy" if (place / "ethylene_CO.pickle").is_file() else ""
    raise UsageError(
        f"{source or folder}: {' or '.join(names)} is not in {place}; put it there from {ARCHIVE}, or set LONGFLOW_DATA"
        f" to a folder that has {folder}/{names[0]}{advice}"
    )


def _numbers(path: Path) -> np.ndarray:
    """Read float64 rows (N, D) of an array, or of a table with a line of names.

    Raises:
        UsageError: the file cannot be read, or holds no rows of numbers.
    """
    with reading(path):
        x = np.asarray(READERS[path.suffix](path), np.float64)
    if x.ndim != 2 or not len(x):
        raise UsageError(f"{path} has shape {x.shape}; expected rows (N, D)")
    return x


def _parquet(path: Path) -> Any:
    import pandas

    return pandas.read_parquet(path).to_numpy()


READERS: dict[str, Callable[[Path], Any]] = {
    ".npy": lambda path: np.load(path, allow_pickle=False),
    ".txt": lambda path: np.loadtxt(path, skiprows=1),
    ".csv": lambda path: np.loadtxt(path, skiprows=1, delimiter=","),
    ".parquet": _parquet,
}

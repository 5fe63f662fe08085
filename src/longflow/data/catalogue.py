"""The data sets that have a name, and how a data set is loaded."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from longflow.data import density_tables, toys
from longflow.data.cifar import cifar10
from longflow.data.dataset import Dataset
from longflow.data.digits import digits
from longflow.data.files import read
from longflow.data.mnist import fashion_mnist, mnist
from longflow.errors import UsageError, choose


@dataclass(frozen=True)
class Source:
    """A data set that has a name.

    Attributes:
        load: loads it; may raise UsageError.
        about: one line on what it is.
    """

    load: Callable[[], Dataset]
    about: str


CATALOGUE: dict[str, Source] = {
    "digits": Source(digits, "1,797 handwritten digits, 1x8x8, 17 levels, no download (Alpaydin and Kaynak, 1998)"),
    "mnist": Source(mnist, "70,000 handwritten digits, 1x28x28 (LeCun, Cortes and Burges, 1998)"),
    "fashion-mnist": Source(fashion_mnist, "70,000 pictures of clothes, 1x28x28 (Xiao, Rasul and Vollgraf, 2017)"),
    "digits-binary": Source(lambda: digits().binarise(0), "digits, each pixel drawn once as black or white"),
    "mnist-binary": Source(lambda: mnist().binarise(0), "mnist, each pixel drawn once as black or white"),
    "cifar10": Source(cifar10, "60,000 photographs of ten kinds of things, 3x32x32 (Krizhevsky, 2009)"),
    "power": Source(density_tables.power, "2,049,280 rows, 6 columns: electricity (as in MAF; files of your own)"),
    "gas": Source(density_tables.gas, "1,052,065 rows, 8 columns: gas sensors (as in MAF; files of your own)"),
    "hepmass": Source(density_tables.hepmass, "525,123 rows, 21 columns: particles (as in MAF; files of your own)"),
    "miniboone": Source(density_tables.miniboone, "36,488 rows, 43 columns: neutrinos (as in MAF; files of your own)"),
    "bsds300": Source(density_tables.bsds300, "1,300,000 rows, 63 columns: patches (as in MAF; files of your own)"),
    "two-moons": Source(toys.two_moons, "two interleaved half circles in the plane"),
    "rings": Source(toys.rings, "four concentric rings in the plane"),
    "checkerboard": Source(toys.checkerboard, "eight squares of a 4 by 4 board in the plane"),
    "pinwheel": Source(toys.pinwheel, "five curved arms in the plane (Johnson et al., 2016)"),
    "eight-gaussians": Source(toys.eight_gaussians, "eight Gaussians on a circle in the plane"),
}


def load(
    spec: str | Path, levels: int | None = None, context: Sequence[str] = (), declared: Sequence[str] = ()
) -> Dataset:
    """Load a data set by its name in the catalogue, or from a folder of pictures, .npz, .npy, .csv or .parquet.

    Args:
        spec: the name or the path; a name wins over a path, which can be written as ./name.
        levels: fewer grey levels to reduce the data to; None leaves them as they are.
        context: what a file's rows are conditioned on (see `read`).
        declared: where the values of a table's columns lie, COLUMN=SUPPORT each (see `Support`).

    Raises:
        UsageError: there is no such data set, or it cannot be read, or not be reduced, or lacks such a context, or has
            values elsewhere.
    """
    data = _load(str(spec), context, declared)
    return data if levels is None else data.quantise(levels)


def _load(spec: str, context: Sequence[str], declared: Sequence[str]) -> Dataset:
    path = Path(spec).expanduser()
    if spec not in CATALOGUE and (path.suffix or os.sep in spec or path.exists()):
        return read(path, context).declare(declared).dataset()
    source = CATALOGUE[choose("data set", spec, CATALOGUE)]
    if context:
        raise UsageError(f"contexts are columns or arrays of a file of your own; '{spec}' has none")
    return source.load().declare(declared)

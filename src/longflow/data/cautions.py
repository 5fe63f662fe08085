"""What a user should know of a table before a density is fitted to it: no mistakes, but numbers that mislead."""

from collections.abc import Callable, Iterator

import numpy as np

from longflow.data.checks import names_of
from longflow.data.dataset import Dataset
from longflow.data.support import Support
from longflow.units import counted

TIED = 0.05
"""Share of rows whose value recurs, beyond which a column is no sample of a density."""

ROWS = 100_000
"""So many rows are looked at: of more, float32 itself has values recur."""

STEPS = 1000
"""Values of float32 in a standard deviation, below which its lattice shows."""

SHOWN = 3


def cautions(dataset: Dataset) -> list[str]:
    """Return a line for each of five things that a table may have; none for pictures and levels.

    They are fewer rows than columns; columns of whole numbers, or with values that recur, that are not declared;
    columns that float32 resolves badly; and values on the end of a support of real numbers.
    """
    if dataset.levels is not None or len(dataset.shape) != 1:
        return []
    return list(_lines(dataset))


def _lines(dataset: Dataset) -> Iterator[str]:
    x = dataset.split("train")[:ROWS]
    names = names_of(dataset.columns, dataset.dims)
    supports = dataset.supports or (None,) * dataset.dims
    coarse = _found(names, lambda k: not _whole(supports[k]) and _coarse(x[:, k]))
    tied = _found(names, lambda k: supports[k] is None and names[k] not in coarse and _recurring(x[:, k]) > TIED)
    whole = [name for name in tied if (x[:, names.index(name)] == np.rint(x[:, names.index(name)])).all()]
    real = [name for name in tied if name not in whole]
    if len(x) < dataset.dims:
        rows, columns = counted(len(x), "training row"), counted(dataset.dims, "column")
        yield f"{dataset.name} has {rows} for {columns}: they hardly determine a density"
    ends = _found(names, lambda k: not _whole(supports[k]) and _on_ends(x[:, k], supports[k]))
    if whole:
        yield (
            f"{_told(whole)} whole numbers that recur, taken as real: the density there is unbounded and its likelihood"
            f" means nothing; declare --support '{whole[0]}=integer' (or '{whole[0]}=real', to hear no more of it)"
        )
    if real:
        yield (
            f"{_told(real)} values that recur (more than {TIED:.0%} of the rows): the density there is unbounded and"
            f" its likelihood means little; count them in their last digit and declare integers (or '{real[0]}=real')"
        )
    if coarse:
        yield (
            f"{_told(coarse)} less than {STEPS:,} values of float32 in a standard deviation: subtract a number from"
            " such a column, or digits are lost"
        )
    if ends:
        yield (
            f"{_told(ends)} values on an end of the declared support, where there is no density: they are scored as"
            " half as far inside as the nearest other value"
        )


def _found(names: tuple[str, ...], has: Callable[[int], bool]) -> list[str]:
    return [name for k, name in enumerate(names) if has(k)]


def _told(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:SHOWN])
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{'column' if len(names) == 1 else 'columns'} {shown}{more} {'has' if len(names) == 1 else 'have'}"


def _whole(support: Support | None) -> bool:
    return support is not None and support.whole


def _recurring(values: np.ndarray) -> float:
    """Return the share of rows whose value is that of another row, too."""
    counts = np.unique(values, return_counts=True)[1]
    return float(1 - (counts == 1).sum() / len(values))


def _coarse(values: np.ndarray) -> bool:
    return bool(STEPS * np.spacing(np.abs(values).max()) > values.std(dtype=np.float64))


def _on_ends(values: np.ndarray, support: Support | None) -> bool:
    if support is None:
        return False
    return bool(((values <= np.float32(support.low)) | (values >= np.float32(support.high))).any())

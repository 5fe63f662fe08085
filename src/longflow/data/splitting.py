"""Cutting rows into splits, always in the same way."""

from collections.abc import Iterable, Mapping

import numpy as np

from longflow.data.dataset import SPLITS
from longflow.errors import UsageError
from longflow.units import counted

ALIASES = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
FEWEST = 10


def named(source: str, names: Iterable[str]) -> dict[str, str]:
    """Map each split to the one of `names` that means it; other names are left out.

    Raises:
        UsageError: two names mean one split.
    """
    found: dict[str, str] = {}
    for name in names:
        split = ALIASES.get(name)
        if split in found:
            raise UsageError(f"{source} has both '{found[split]}' and '{name}' for the {split} split")
        if split is not None:
            found[split] = name
    return {split: found[split] for split in SPLITS if split in found}


def cut(rows: np.ndarray, held_out: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Shuffle rows (N, …) by a permutation that depends on N alone, and cut them into splits.

    Args:
        rows: what to cut. Rows and labels of the same length are cut alike.
        held_out: number of rows of each split after `train`, which gets the rest.
    """
    order = np.random.default_rng(0).permutation(len(rows))
    sizes = [len(rows) - sum(held_out.values()), *held_out.values()]
    parts = np.split(order, np.cumsum(sizes)[:-1])
    return {split: rows[part] for split, part in zip(("train", *held_out), parts, strict=True)}


def fill(source: str, splits: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return all of SPLITS, each missing one being cut from `train` as a tenth of it.

    So a lone `train` is cut 80/10/10, and one beside a `test` is cut 90/10.

    Raises:
        UsageError: there are too few rows to cut.
    """
    missing = [split for split in SPLITS if split not in splits]
    n = len(splits["train"])
    if missing and n < FEWEST:
        raise UsageError(
            f"{source} has {counted(n, 'row')}; at least {FEWEST} are needed to cut {' and '.join(missing)}"
        )
    whole = {**splits, **cut(splits["train"], dict.fromkeys(missing, n // FEWEST))} if missing else splits
    return {split: whole[split] for split in SPLITS}

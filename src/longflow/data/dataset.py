"""A data set: three splits of rows of one shape, and what their values mean."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from longflow.data.checks import require_finite, require_varied
from longflow.data.contexts import Contexts
from longflow.data.events import Events
from longflow.data.support import Support, of_table
from longflow.errors import UsageError, choose

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows in three splits; images are (C, H, W). Every array is C-contiguous.

    Attributes:
        name: what reports and messages call the data.
        splits: an array (N, *shape) for each of SPLITS: uint8 for data with levels, else float32.
            Only `train` must have rows.
        levels: number of grey levels L, the values being 0 … L - 1; None for continuous data.
        labels: int64 array (N,) for each of SPLITS, or None.
        columns: names of the D features of a table, or None.
        contexts: what each row is conditioned on, or None.
        dtypes: types of the source's columns by name (x1 … xD without names), or None.
        supports: where the values of each column lie, None where nothing is declared; or None.

    Raises:
        UsageError: on construction, when an array is not what is stated above, a row has no value, or
            continuous data are not finite or have a feature that never varies in `train`.
    """

    name: str
    splits: Mapping[str, np.ndarray]
    levels: int | None
    labels: Mapping[str, np.ndarray] | None = None
    columns: tuple[str, ...] | None = None
    contexts: Contexts | None = None
    dtypes: Mapping[str, str] | None = None
    supports: tuple[Support | None, ...] | None = None

    def __post_init__(self) -> None:
        _check_splits(self.name, self.splits)
        object.__setattr__(self, "splits", {s: np.ascontiguousarray(self.splits[s]) for s in SPLITS})
        if self.columns is not None and self.shape != (len(self.columns),):
            raise UsageError(f"{self.name}: {len(self.columns)} column names for rows of shape {self.shape}")
        if self.levels is None:
            _check_continuous(self.name, self.splits, self.columns)
        else:
            _check_levels(self.name, self.splits, self.levels)
        if self.labels is not None:
            _check_labels(self.name, self.splits, self.labels)
        if self.contexts is not None:
            self.contexts.check(self.name, self.splits)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.splits["train"].shape[1:]

    @property
    def dims(self) -> int:
        """Number of values of one row."""
        return math.prod(self.shape)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of rows of each split."""
        return {split: len(self.splits[split]) for split in SPLITS}

    @cached_property
    def sha256(self) -> str:
        """Hash of dtype, shape and bytes of every split: the same content has the same hash under any name."""
        digest = hashlib.sha256()
        for split in SPLITS:
            x = self.splits[split]
            digest.update(f"{x.dtype.str}{x.shape}".encode())
            digest.update(x.data if x.size else b"")
        return digest.hexdigest()

    @cached_property
    def labels_sha256(self) -> str | None:
        """Hash of the labels of every split; None where there are none."""
        if self.labels is None:
            return None
        return hashlib.sha256(b"".join(self.labels[split].tobytes() for split in SPLITS)).hexdigest()

    def split(self, name: str) -> np.ndarray:
        """Return the rows (N, *shape) of one split.

        Raises:
            UsageError: there is no such split, or it has no rows.
        """
        x = self.splits[choose("split", name, SPLITS)]
        if len(x) == 0:
            raise UsageError(f"{self.name}: the {name} split is empty ({self._sizes()})")
        return x

    def events(self, name: str) -> Events:
        """Return the rows of one split with their contexts, where there are some.

        Raises:
            UsageError: there is no such split, or it has no rows.
        """
        return Events(self.split(name), None if self.contexts is None else self.contexts.splits[name])

    def declare(self, declarations: Sequence[str]) -> "Dataset":
        """Return a table whose columns have declared supports, COLUMN=SUPPORT each (see `Support`).

        Raises:
            UsageError: a declaration is wrong, or a value lies outside.
        """
        if not declarations:
            return self
        told = {
            of_table(self.name, x, self.levels, self.columns, declarations, f"row {{}} of {split}".format)
            for split, x in self.splits.items()
        }
        return replace(self, supports=told.pop())

    def quantise(self, levels: int) -> "Dataset":
        """Return the data with fewer grey levels, floor(x · levels / L) (Glow's n_bits: levels = 2^n_bits).

        Raises:
            UsageError: the data are continuous, or `levels` is not within 2 … L.
        """
        if self.levels is None:
            raise UsageError(f"{self.name} is continuous: it has no levels to reduce to {levels}")
        if not 2 <= levels <= self.levels:
            raise UsageError(f"{self.name} has {self.levels} levels; expected 2 … {self.levels}, got {levels}")
        table = (np.arange(self.levels) * levels // self.levels).astype(np.uint8)
        return replace(self, levels=levels, splits={s: table[x] for s, x in self.splits.items()})

    def binarise(self, seed: int) -> "Dataset":
        """Return two levels, each value drawn once and for all as 1 with the probability x / (L - 1).

        (Salakhutdinov & Murray 2008: the static binarisation on which likelihoods of binary MNIST are published. Their
        very draw is not had here; this is another, fixed by the seed.)

        Raises:
            UsageError: the data are continuous.
        """
        if self.levels is None:
            raise UsageError(f"{self.name} is continuous: it has no levels to draw from")
        generator = np.random.default_rng(seed)
        drawn = {
            s: (generator.random(x.shape) * (self.levels - 1) < x).astype(np.uint8) for s, x in self.splits.items()
        }
        return replace(self, name=f"{self.name}-binary", levels=2, splits=drawn)

    def describe(self) -> str:
        """Return one line: name, shape, levels, sizes of the splits and the beginning of the hash."""
        values = "continuous" if self.levels is None else f"{self.levels} levels"
        shape = "x".join(map(str, self.shape))
        return f"{self.name}: {shape}, {values}, {self._sizes()}, sha256 {self.sha256[:12]}"

    def _sizes(self) -> str:
        return ", ".join(f"{split} {n}" for split, n in self.sizes.items())


def _check_splits(name: str, splits: Mapping[str, np.ndarray]) -> None:
    if set(splits) != set(SPLITS):
        raise UsageError(f"{name}: expected the splits {', '.join(SPLITS)}, got {', '.join(splits)}")
    if len(splits["train"]) == 0:
        raise UsageError(f"{name}: the train split is empty")
    shapes = {split: splits[split].shape[1:] for split in SPLITS}
    if len(set(shapes.values())) > 1:
        raise UsageError(f"{name}: the rows of the splits differ in shape: {shapes}")
    if math.prod(shapes["train"]) < 1:
        raise UsageError(f"{name}: rows have shape {shapes['train']}, but a density needs a value in a row")


def _check_levels(name: str, splits: Mapping[str, np.ndarray], levels: int) -> None:
    _check_dtype(name, splits, np.uint8)
    if not 2 <= levels <= 256:
        raise UsageError(f"{name}: expected 2 … 256 levels, got {levels}")
    top = max(int(x.max(initial=0)) for x in splits.values())
    if top >= levels:
        raise UsageError(f"{name}: has the value {top}, but {levels} levels are 0 … {levels - 1}")


def _check_continuous(name: str, splits: Mapping[str, np.ndarray], columns: tuple[str, ...] | None) -> None:
    _check_dtype(name, splits, np.float32)
    for split, x in splits.items():
        require_finite(f"{name}, {split}", x, columns)
    require_varied(name, splits["train"], columns)


def _check_dtype(name: str, splits: Mapping[str, np.ndarray], dtype: type[np.generic]) -> None:
    for split, x in splits.items():
        if x.dtype != dtype:
            raise UsageError(f"{name}: expected {dtype.__name__} values in {split}, got {x.dtype}")


def _check_labels(name: str, splits: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> None:
    for split, x in splits.items():
        y = labels.get(split)
        if y is None or y.dtype != np.int64 or y.shape != (len(x),):
            got = "none" if y is None else f"{y.dtype} {y.shape}"
            raise UsageError(f"{name}: expected int64 labels of shape ({len(x)},) for {split}, got {got}")

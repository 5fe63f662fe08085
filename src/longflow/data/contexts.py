"""What rows are conditioned on: columns of their table, or an array beside them."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from longflow.data.checks import require_finite
from longflow.errors import UsageError, choose


@dataclass(frozen=True, eq=False)
class Contexts:
    """A context for each row, beside the rows.

    Attributes:
        names: the columns of the table that they were, in the order of a context's features; or the array's name.
        splits: float32 array (N, *shape) for each split of the rows.
        table: all columns of that table, those of the rows among them, in its order; None for an array.
    """

    names: tuple[str, ...]
    splits: Mapping[str, np.ndarray]
    table: tuple[str, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one context."""
        return self.splits["train"].shape[1:]

    @property
    def features(self) -> tuple[str, ...]:
        """Names of a context's numbers: columns; name1, name2, ... of an array; none where it is no vector."""
        if self.table is not None or self.shape == (1,):
            return self.names
        return tuple(f"{self.names[0]}{k + 1}" for k in range(self.shape[0])) if len(self.shape) == 1 else ()

    @property
    def range(self) -> tuple[list[float], list[float]]:
        """The least and the largest value of each number of a context in the training rows."""
        flat = self.splits["train"].reshape(len(self.splits["train"]), -1)
        return flat.min(0).tolist(), flat.max(0).tolist()

    @cached_property
    def sha256(self) -> str:
        """Hash of shape and bytes of every split."""
        digest = hashlib.sha256()
        for _, x in sorted(self.splits.items()):
            digest.update(f"{x.shape}".encode() + x.tobytes())
        return digest.hexdigest()

    def check(self, name: str, splits: Mapping[str, np.ndarray]) -> None:
        """Raise UsageError unless each row of the data `name` has a finite context, and contexts differ in training."""
        for split, rows in splits.items():
            x = self.splits.get(split)
            if x is None or x.dtype != np.float32 or x.shape != (len(rows), *self.shape) or x.ndim < 2:
                came = "none" if x is None else f"{x.dtype} {x.shape}"
                raise UsageError(f"{name}: expected float32 contexts of {len(rows)} rows for {split}; {came} came")
            require_finite(f"{name}, contexts of {split}", x, self.features or None)
        if math.prod(self.shape) == 0:
            raise UsageError(f"{name}: contexts have shape {self.shape}: there is nothing in them")
        channels = self.splits["train"].reshape(len(self.splits["train"]), self.shape[0], -1)
        constant = np.flatnonzero(channels.min((0, 2)) == channels.max((0, 2)))
        if len(constant):
            which = repr(self.features[constant[0]]) if self.features else f"channel {constant[0]}"
            raise UsageError(
                f"{name}: the context {which} has the same value in every row of the train split, and tells nothing;"
                " leave it out"
            )


def names_of(source: str, asked: Sequence[str], columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that are asked for, of a table: names, or several in one text, separated by commas.

    Raises:
        UsageError: there is no such column, which names the nearest, or one comes twice.
    """
    parts = [part for text in asked for part in ([text] if text in columns else text.split(","))]
    names = [part if part in columns else part.strip() for part in parts]
    for k, name in enumerate(names):
        choose(f"context column in {source}:", name, columns)
        if name in names[:k]:
            raise UsageError(f"the context column {name!r} comes twice")
    return tuple(names)

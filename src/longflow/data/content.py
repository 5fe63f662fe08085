"""What a file or a folder of the user's holds, before it is split."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from longflow.data.contexts import Contexts, names_of
from longflow.data.dataset import SPLITS, Dataset
from longflow.data.events import Events
from longflow.data.splitting import fill
from longflow.data.support import Support, of_table
from longflow.errors import UsageError


@dataclass(frozen=True, eq=False)
class Content:
    """Rows in the order of their source.

    Attributes:
        name: name of the file or folder.
        splits: the splits that the source tells apart, (N, *shape) each; only `train` where it tells none apart.
        levels: number of grey levels of uint8 values, or None for float32 values.
        labels: int64 (N,) for each of `splits`, or None.
        columns: names of the features of a table, or None.
        contexts: what the rows are conditioned on, for each of `splits`, or None.
        dtypes: types of the source's columns by name (x1 … xD without names), or None.
        supports: where the values of each column lie, None where nothing is declared; or None.
        place: tells where in the source the row of a given index (from 0) stands.
    """

    name: str
    splits: Mapping[str, np.ndarray]
    levels: int | None
    labels: Mapping[str, np.ndarray] | None = None
    columns: tuple[str, ...] | None = None
    contexts: Contexts | None = None
    dtypes: Mapping[str, str] | None = None
    supports: tuple[Support | None, ...] | None = None
    place: Callable[[int], str] = "row {}".format

    @property
    def rows(self) -> np.ndarray:
        """Every row, the splits one after the other: (N, *shape)."""
        return self._joined(self.splits)

    @property
    def events(self) -> Events:
        """Every row with its context, in the order of `rows`."""
        return Events(self.rows, None if self.contexts is None else self._joined(self.contexts.splits))

    def _joined(self, parts: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.concatenate([parts[split] for split in SPLITS if split in self.splits])

    def conditioned(self, asked: Sequence[str]) -> "Content":
        """Return the table without the columns that are asked for, which become its contexts, in the order asked.

        Raises:
            UsageError: a column is unknown or comes twice.
        """
        table = self.columns or ()
        names = names_of(self.name, asked, table)
        own = [k for k, name in enumerate(table) if name not in names]
        given = [table.index(name) for name in names]
        contexts = {split: np.ascontiguousarray(x[:, given]) for split, x in self.splits.items()}
        rows = {split: x[:, own] for split, x in self.splits.items()}
        left = tuple(table[k] for k in own)
        return replace(self, splits=rows, columns=left, contexts=Contexts(names, contexts, table))

    def declare(self, declarations: Sequence[str]) -> "Content":
        """Return a table whose columns have declared supports, COLUMN=SUPPORT each (see `Support`).

        Raises:
            UsageError: a declaration is wrong or of a context, or a value lies outside: where in the source.
        """
        if not declarations:
            return self
        contexts = () if self.contexts is None else self.contexts.names
        for column in (text.rpartition("=")[0].strip() for text in declarations):
            if column in contexts:
                raise UsageError(f"{column!r} is a context: supports are for the columns that the density is of")
        supports = of_table(self.name, self.rows, self.levels, self.columns, declarations, self.place)
        return replace(self, supports=supports)

    def dataset(self) -> Dataset:
        """Cut the missing splits from `train` (see `fill`).

        Raises:
            UsageError: there are too few rows, or they make no data set.
        """
        contexts = self.contexts
        if contexts and self.columns is not None and not self.columns:
            raise UsageError(f"{self.name}: 0 of {len(contexts.table or ())} columns is left beside the contexts")
        labels = None if self.labels is None else self.cut(self.labels)
        contexts = contexts and replace(contexts, splits=self.cut(contexts.splits))
        return Dataset(
            self.name,
            self.cut(self.splits),
            self.levels,
            labels,
            self.columns,
            contexts,
            dtypes=self.dtypes,
            supports=self.supports,
        )

    def cut(self, parts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return arrays with a value for each row of `splits`, cut into all splits as the rows are."""
        return fill(self.name, parts)

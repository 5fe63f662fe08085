"""What a file or a folder of the user's holds, before it is split."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from longflow.data.dataset import SPLITS, Dataset
from longflow.data.splitting import fill


@dataclass(frozen=True, eq=False)
class Content:
    """Rows in the order of their source.

    Attributes:
        name: name of the file or folder.
        splits: the splits that the source tells apart, (N, *shape) each; only `train` where it tells none apart.
        levels: number of grey levels of uint8 values, or None for float32 values.
        labels: int64 (N,) for each of `splits`, or None.
        columns: names of the features of a table, or None.
    """

    name: str
    splits: Mapping[str, np.ndarray]
    levels: int | None
    labels: Mapping[str, np.ndarray] | None = None
    columns: tuple[str, ...] | None = None

    @property
    def rows(self) -> np.ndarray:
        """Every row, the splits one after the other: (N, *shape)."""
        return np.concatenate([self.splits[split] for split in SPLITS if split in self.splits])

    def dataset(self) -> Dataset:
        """Cut the missing splits from `train` (see `fill`).

        Raises:
            UsageError: there are too few rows, or they make no data set.
        """
        labels = None if self.labels is None else self.cut(self.labels)
        return Dataset(self.name, self.cut(self.splits), self.levels, labels, self.columns)

    def cut(self, parts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return arrays with a value for each row of `splits`, cut into all splits as the rows are."""
        return fill(self.name, parts)

"""Rows and, where there are some, what each is conditioned on: together wherever they are cut, chosen or shuffled."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Events:
    """Rows (N, *shape), each with its context, (N, *context_shape), or without."""

    rows: np.ndarray
    contexts: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: Any) -> "Events":
        """Return the events that a slice or an array chooses."""
        return Events(self.rows[which], None if self.contexts is None else self.contexts[which])

    @classmethod
    def of(cls, rows: "np.ndarray | Events") -> "Events":
        """Return events as they are, and rows as events without a context."""
        return rows if isinstance(rows, Events) else cls(rows)

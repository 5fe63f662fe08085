"""Values without log-determinants, where only values are wanted."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_wanted: ContextVar[bool] = ContextVar("log_dets_wanted", default=True)


@contextmanager
def values_only() -> Iterator[None]:
    """Within it, a bijection whose log-determinant costs more than its value need not compute it, and returns zeros."""
    token = _wanted.set(False)
    try:
        yield
    finally:
        _wanted.reset(token)


def log_dets_wanted() -> bool:
    """Return whether log-determinants are wanted here: everywhere but within `values_only`, and in a compiled graph."""
    return torch.compiler.is_compiling() or _wanted.get()

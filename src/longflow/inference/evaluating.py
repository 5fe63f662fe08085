"""What draws and scores must come of: one network, without dropout, with its log-determinants as exact as they get."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every layer of a model in evaluation mode; afterwards each is in the mode it was in."""
    training = [layer for layer in model.modules() if layer.training]
    model.eval()
    try:
        yield
    finally:
        for layer in training:
            layer.training = True

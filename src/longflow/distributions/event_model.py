"""What every model has, whether it is a distribution or not: a shape, a type, a way to a folder."""

import os
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from longflow.errors import UsageError
from longflow.runs import Run


class EventModel(nn.Module):
    """A module for events of one shape."""

    shape: tuple[int, ...]
    config: dict[str, Any] | None = None
    """How it was built, for `save`; None for one composed by hand."""

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json and model.safetensors to a new folder, from which `longflow.load` takes them."""
        if self.config is None:
            raise UsageError(
                "only a model that longflow.build made can be saved; for one made by hand, save its state_dict"
            )
        run = Run.create(folder)
        run.write_config(self.config)
        run.write_weights(self.state_dict())

    @property
    def dims(self) -> int:
        """The number of numbers in an event."""
        return prod(self.shape)

    def dtype(self, x: Tensor) -> torch.dtype:
        """Return the floating-point type of the model, or that of x where the model has no parameters."""
        return next((p.dtype for p in self.parameters()), x.dtype if x.is_floating_point() else torch.float32)

    def check_rows(self, x: Tensor, shape: tuple[int, ...]) -> None:
        """Raise UsageError unless x is (B, *shape), of the model's floating-point type."""
        if tuple(x.shape[1:]) != shape:
            raise UsageError(f"expected events of shape (B, {', '.join(map(str, shape))}); {tuple(x.shape)} came")
        if x.dtype != self.dtype(x):
            raise UsageError(f"expected events of {self.dtype(x)}, as the model's; {x.dtype} came")

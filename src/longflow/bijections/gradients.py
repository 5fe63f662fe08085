"""What functions share whose gradient is written by hand."""

import inspect
from typing import Any

import torch


class ByHand(torch.autograd.Function):
    """A function with `forward`, `setup_context` and a `backward` that is differentiable itself, over a batch, too.

    torch asks for the signature of `forward` at every call; here it is taken once.
    """

    generate_vmap_rule = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.forward.__signature__ = inspect.signature(cls.forward)  # type: ignore[attr-defined]

"""The protocol of networks that see the features one after the other."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

Answer = Callable[[int, Tensor], Tensor]
"""From a feature d and the numbers for it, (B, k), to its value, (B, 1)."""


class Seen:
    """What each layer has seen so far in one call: columns of its input, the earliest features' first."""

    def __init__(self, context: Tensor | None) -> None:
        self.context = context
        self.columns: dict[int, Tensor] = {}

    def add(self, layer: int, new: Tensor) -> Tensor:
        """Append columns to what a layer has seen, and return all of them."""
        before = self.columns.get(layer)
        self.columns[layer] = new if before is None else torch.cat((before, new), 1)
        return self.columns[layer]


class Causal(nn.Module, ABC):
    """A network of (x, context) whose k numbers for feature d depend on the features before d, and on the context.

    A leaf implements `advance`, from which come both ways to call it: all features at once (`forward`), and one after
    the other (`unroll`), where each hidden unit is computed once, as soon as what it needs is known. So `unroll` costs
    the arithmetic of one pass, though in `features` small steps.
    """

    features: int

    @abstractmethod
    def advance(self, new: Tensor, seen: Seen, first: int, end: int) -> Tensor:
        """Return the numbers for the features `first` to `end` - 1, (B, k·(end - first)), parameter by parameter.

        `new` are the features that come before `end` - 1 and that earlier calls with the same `seen` had not.
        """

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map features (B, D) to (B, k·D), parameter by parameter."""
        return self.advance(x[:, :-1], Seen(context), 0, self.features)

    def unroll(self, answer: Answer, empty: Tensor, context: Tensor | None = None) -> Tensor:
        """Return x, (B, D), where x_d = answer(d, the numbers for d given those before); `empty` is of shape (B, 0)."""
        seen, new = Seen(context), empty
        found = []
        for d in range(self.features):
            found.append(answer(d, self.advance(new, seen, d, d + 1)))
            new = found[-1].to(empty.dtype)
        return torch.cat(found, 1)

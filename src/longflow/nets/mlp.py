"""The fully connected conditioner."""

import itertools
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """`depth` hidden layers of `hidden` units, rectified unless said otherwise, then a linear or rectified output.

    Maps (B, features_in) to (B, features_out). A context of shape (B, context) is appended to the input.
    Hidden layers start at torch's uniform values or at Glorot's, which are larger. A linear output starts at zero, so
    that a coupling starts at the identity; a rectified one starts at Glorot's values, as at zero it would never learn.
    """

    def __init__(
        self,
        features_in: int,
        features_out: int,
        *,
        hidden: int,
        depth: int,
        last: Literal["linear", "relu"] = "linear",
        init: Literal["torch", "glorot"] = "torch",
        activation: Callable[[], nn.Module] = nn.ReLU,
        dropout: float = 0.0,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.context = context
        widths = [features_in + context, *[hidden] * depth]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            linear = nn.Linear(before, after)
            if init == "glorot":
                nn.init.xavier_uniform_(linear.weight)
                nn.init.zeros_(linear.bias)
            layers += [linear, activation()]
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
        output = nn.Linear(widths[-1], features_out)
        if last == "linear":
            nn.init.zeros_(output.weight)
            layers.append(output)
        else:
            nn.init.xavier_uniform_(output.weight)
            layers += [output, nn.ReLU()]
        nn.init.zeros_(output.bias)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the parameters, of shape (B, features_out)."""
        if self.context and context is not None:
            x = torch.cat((x, context), 1)
        return self.layers(x)

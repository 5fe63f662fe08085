"""The fully connected residual conditioner."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class GatedBlock(nn.Module):
    """u + V drop(σ(W σ(u))); where there is a context, sigmoids of it gate the change (Durkan et al. 2019, B.1)."""

    def __init__(self, hidden: int, activation: Callable[[], nn.Module], dropout: float, context: int) -> None:
        super().__init__()
        outer = nn.Linear(hidden, hidden)
        nn.init.zeros_(outer.weight)
        nn.init.zeros_(outer.bias)
        dropping = nn.Dropout(dropout) if dropout else nn.Identity()
        self.layers = nn.Sequential(activation(), nn.Linear(hidden, hidden), activation(), dropping, outer)
        self.gate = nn.Linear(context, hidden) if context else None

    def forward(self, units: Tensor, context: Tensor | None) -> Tensor:
        """Map (B, hidden) to (B, hidden)."""
        change = self.layers(units)
        if self.gate is not None and context is not None:
            change = change * self.gate(context).sigmoid()
        return units + change


class ResidualMLP(nn.Module):
    """A linear layer to `hidden` units, `blocks` pre-activation residual blocks of two layers each, and a linear layer.

    Maps (B, features_in) to (B, features_out) (the conditioner of Neural Spline Flows: Durkan et al. 2019, B.1). A
    context (B, context) is appended to the input, and gates every block. Output and blocks start at zero, so that a
    coupling starts at the identity.
    """

    def __init__(
        self,
        features_in: int,
        features_out: int,
        *,
        hidden: int,
        blocks: int,
        activation: Callable[[], nn.Module] = nn.ReLU,
        dropout: float = 0.0,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.context = context
        self.first = nn.Linear(features_in + context, hidden)
        self.blocks = nn.ModuleList(GatedBlock(hidden, activation, dropout, context) for _ in range(blocks))
        self.last = nn.Linear(hidden, features_out)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the parameters, of shape (B, features_out)."""
        given = context if self.context else None
        units = self.first(x if given is None else torch.cat((x, given), 1))
        for block in self.blocks:
            units = block(units, given)
        return self.last(units)

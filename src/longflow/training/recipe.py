"""How to train: the hyper-parameters of the loop, and the learning rate they give at a step."""

import math
from dataclasses import dataclass
from typing import Literal

from longflow.errors import UsageError, choose

SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class Recipe:
    """Adam with warm-up, a schedule, clipping by norm and an exponential moving average (EMA) of the weights.

    Attributes:
        batch: Rows in a batch.
        lr: Learning rate.
        schedule: Constant, or half a cosine down to zero.
        warmup: Steps over which the learning rate rises from zero.
        weight_decay: Decoupled weight decay.
        beta1: Adam's decay of the mean gradient.
        beta2: Adam's decay of the mean squared gradient.
        eps: Adam's epsilon.
        clip: Largest norm of a gradient (of the loss in bits/dim); longer ones are scaled down.
        ema: Decay of the average of the weights that is validated and kept; 0 for none.
    """

    batch: int = 128
    lr: float = 1e-3
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup: int = 100
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    clip: float = 50.0
    ema: float = 0.999

    def __post_init__(self) -> None:
        choose("schedule", self.schedule, SCHEDULES)
        for name, least in (("batch", 1), ("warmup", 0), ("weight_decay", 0), ("beta1", 0), ("beta2", 0), ("ema", 0)):
            if not getattr(self, name) >= least:
                raise UsageError(f"expected {name} >= {least}; {getattr(self, name)} came")
        for name in ("lr", "eps", "clip"):
            if not getattr(self, name) > 0:
                raise UsageError(f"expected {name} > 0; {getattr(self, name)} came")
        for name in ("beta1", "beta2", "ema"):
            if not getattr(self, name) < 1:
                raise UsageError(f"expected {name} < 1; {getattr(self, name)} came")

    def lr_at(self, step: int, steps: int) -> float:
        """Return the learning rate of step 0 <= step < steps: a linear warm-up, then constant or half a cosine."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.lr
        share = (step - self.warmup) / max(1, steps - self.warmup)
        return self.lr * 0.5 * (1 + math.cos(math.pi * share))

    def ema_at(self, step: int) -> float:
        """Return the EMA's decay after `step` updates: it warms up, so that a short run is not its first weights."""
        return min(self.ema, (1 + step) / (10 + step))

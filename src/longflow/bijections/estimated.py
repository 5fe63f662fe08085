"""Bijections whose log-determinant is exact for events of few numbers and an estimate beyond."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from longflow.bijections.bijection import Bijection, Step

EXACT_IN_TRAINING = 3
"""Events of at most so many numbers have their derivatives exactly in training too: it costs no more than probes."""

EXACT_DIMS = 64


class Estimated(Bijection):
    """A bijection of events of `dims` numbers whose log-determinant costs a product with a Jacobian for each of them.

    In evaluation mode it is exact for events of at most `exact_dims` numbers, in training mode for those of at most 3;
    beyond, an estimate from random probes. Within `values_only` it is not computed.
    """

    exact = False
    dims: int
    exact_dims: int

    @property
    def estimates(self) -> bool:
        return self.dims > self.exact_dims

    @property
    def by_probes(self) -> bool:
        """Whether the log-determinant is an estimate in the mode of now."""
        return self.dims > (EXACT_IN_TRAINING if self.training else self.exact_dims)

    @abstractmethod
    def account(self) -> dict[str, Any]:
        """Return how evaluation has the log-determinant, for a report: `exact`, and the numbers that matter.

        `bias_bound`, where it is known, is in nats.
        """


def outside_inference(step: Step, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return step(x, context), without a gradient where inference mode is on: derivatives cannot be had within it."""
    if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
        return step(x, context)
    with torch.inference_mode(mode=False), torch.no_grad():
        return step(x.clone(), None if context is None else context.clone())

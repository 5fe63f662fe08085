"""Batch normalisation as a bijection, for RealNVP."""

from collections.abc import Iterator

import torch
from torch import Tensor

from longflow.adaptive import Statistic, moments
from longflow.bijections.bijection import Bijection, Example

EPSILON = 1e-4


class BatchNorm(Statistic, Bijection):
    """z = (x - μ) / √(σ² + ε), a number a feature; log|det| = -½ places · Σ log(σ² + ε) (RealNVP, section 3.7).

    In training mode forward takes μ and σ² from the batch, with their gradient, so that rows meet: the one exception
    in this house. In evaluation mode, and for the inverse, they are the stored ones, which `settle` takes from data.
    As the way back does not know the batch that went forth, a chain with it cannot have reversible memory.
    """

    reversible = False

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mean, variance = self._of_batch(x) if self.training else (self.mean, self.variance)
        scale = (_as_wide(variance, x) + EPSILON).rsqrt()
        return (x - mean) * scale, self._log_det(scale, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        deviation = (_as_wide(self.variance, z) + EPSILON).sqrt()
        return z * deviation + self.mean, self._log_det(deviation, z)

    def _of_batch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = moments(x, self.mean.shape)
        return mean, std.square()

    def _log_det(self, scale: Tensor, x: Tensor) -> Tensor:
        return scale.log().expand_as(x).flatten(1).sum(1)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        for shape, event in (((3,), (3,)), ((2, 1, 1), (2, 4, 3))):
            layer = cls(shape).eval()
            layer.adapt(torch.randn(7, *event) * 3 + 1)
            yield Example(layer, event)


def _as_wide(stored: Tensor, x: Tensor) -> Tensor:
    return stored.to(torch.promote_types(stored.dtype, x.dtype))

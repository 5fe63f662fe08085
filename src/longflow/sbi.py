"""Flows as density estimators of sbi (Tejero-Cantero et al. 2020). Needs sbi; imported by whoever has it."""

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Size, Tensor, nn

from longflow.adaptive import ADAPT_ROWS
from longflow.bijections import Standardise, adapt
from longflow.distributions import LatentModel
from longflow.errors import UsageError
from longflow.models import build
from longflow.nets import Standardiser

try:
    from sbi.neural_nets.estimators.base import ConditionalDensityEstimator
except ImportError as error:
    raise ImportError("longflow.sbi needs sbi 0.27 or newer: pip install 'longflow[sbi]'") from error


class FlowEstimator(ConditionalDensityEstimator):
    """q(θ | x) by a conditional flow, in sbi's shapes: inputs θ (sample, batch, *event), conditions x (batch, *event).

    `net` is the flow, in the units of θ; `embedding` makes its context, (B, k), of conditions. A condition is embedded
    once, however many samples are drawn or scored under it.
    """

    def __init__(self, flow: LatentModel, embedding: nn.Module, condition_shape: tuple[int, ...]) -> None:
        super().__init__(flow, Size(flow.shape), Size(condition_shape))
        self._embedding = embedding

    @property
    def embedding_net(self) -> nn.Module:
        """The network that makes the context of conditions."""
        return self._embedding

    def log_prob(self, input: Tensor, condition: Tensor) -> Tensor:
        """Return log q(input | condition), (sample, batch), in nats.

        Both are (batch, *event) or (sample, batch, *event); batches of 1 are broadcast.
        """
        self._check_input_shape(input)
        inputs = input if input.dim() > len(self.input_shape) + 1 else input[None]
        return self._given(condition).log_prob(inputs)

    def loss(self, input: Tensor, condition: Tensor) -> Tensor:
        """Return -log q(input | condition), (batch,), in nats."""
        return -self.log_prob(input[None], condition)[0]

    def sample(self, sample_shape: Any, condition: Tensor) -> Tensor:
        """Draw inputs, (*sample_shape, batch, *event)."""
        return self._given(condition).sample(Size(sample_shape))

    def _given(self, condition: Tensor) -> torch.distributions.Distribution:
        self._check_condition_shape(condition)
        batch = condition.shape[: condition.dim() - len(self.condition_shape)]
        context = self._embedding(condition.reshape(batch.numel(), *self.condition_shape))
        return cast(LatentModel, self.net).distribution(context.reshape(*batch, context.shape[1]))


@dataclass(frozen=True)
class Builder:
    """Builds an estimator from batches of θ, (B, D), and x, (B, *shape): what sbi's trainers ask for."""

    model: str
    embedding: nn.Module | None
    options: dict[str, Any] = field(default_factory=dict)

    def __call__(self, theta: Tensor, x: Tensor) -> FlowEstimator:
        """Return a new estimator whose units, scales and shapes are those of the batches."""
        units = Standardiser(tuple(x.shape[1:]))
        units.fit(finite(x))
        embedding = nn.Sequential(units, self.embedding or nn.Flatten())
        with torch.no_grad():
            contexts = embedding(x[:ADAPT_ROWS])
        flow = cast(LatentModel, build(self.model, tuple(theta.shape[1:]), context=contexts.shape[1], **self.options))
        scale, mean = torch.std_mean(finite(theta).double(), 0, correction=0)
        flow.preprocess(Standardise(mean, scale))
        adapt(flow, theta[:ADAPT_ROWS], contexts)
        return FlowEstimator(flow, embedding, tuple(x.shape[1:]))


def density_estimator(model: str = "nsf", *, embedding: nn.Module | None = None, **options: Any) -> Builder:
    """Return what `sbi.inference.NPE(density_estimator=…)` and its like build their network with.

    Parameters and observations are standardised inside, by the batches that sbi hands over.

    Args:
        model: A flow of the catalogue with a `context`.
        embedding: Network of standardised observations, (B, *shape), to features (B, k); None for their numbers. It is
            trained with the flow.
        options: Options of the model.
    """
    return Builder(model, embedding, options)


def finite(rows: Tensor) -> Tensor:
    """Return the rows (B, *shape) that are finite in every number; two are needed to standardise by."""
    kept = rows[rows.flatten(1).isfinite().all(1)]
    if len(kept) < 2:
        raise UsageError(f"expected at least 2 finite rows to standardise by; {len(kept)} came")
    return kept

"""A model seen as one of `torch.distributions`: the same density, in torch's algebra of shapes."""

import sys
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from longflow.errors import UsageError

if TYPE_CHECKING:
    from longflow.distributions.distribution import Distribution


class TorchDistribution(torch.distributions.Distribution):
    """p(x | c) of a model, for contexts c of shape (*batch_shape, *context_shape).

    - `batch_shape` is what the context has before the shape of one context; () without a context. `event_shape` is the
      shape of an event.
    - `log_prob(value)` broadcasts as torch does: (*sample_shape, *batch_shape, *event_shape), or anything that expands
      with batch_shape, to the shape without event_shape; in nats, in the units of the events. It is what the model's
      `likelihood` says: where that is no exact one, a bound or an estimate with draws of torch's generator.
    - `rsample` is differentiable in the model's parameters and in the context. It raises NotImplementedError where a
      sample is not (levels; mixtures with learned weights): then `has_rsample` is False.
    - `expand` repeats the context without a copy. The model is the same one, not a copy: optimisers and `.double()`
      reach it here, too.

    Arguments are checked as torch does it, and torch itself is left as it is. Raises UsageError, which is a ValueError,
    where the context is not the model's.
    """

    def __init__(
        self,
        model: "Distribution",
        context: Tensor | None = None,
        validate_args: bool | None = None,  # noqa: FBT001
    ) -> None:
        if model.likelihood == "none":
            raise UsageError(f"{type(model).__name__} has no density of its events: it is no distribution of torch's")
        self.model, self.context = model, context
        batch_shape = Size() if context is None else context.shape[: context.dim() - len(self._own)]
        model.check_context(batch_shape.numel(), self._flat(batch_shape))
        super().__init__(batch_shape, Size(model.shape), validate_args=validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether a sample is differentiable in all parameters."""
        return self.model.reparametrised and self.model.levels is None

    @property
    def arg_constraints(self) -> dict[str, Constraint]:
        """A context of real numbers, none missing, or of classes; empty where there is no context."""
        if self.context is None or not self.context.numel():  # torch's own check raises for nothing
            return {}
        kind = constraints.real if self.context.is_floating_point() else constraints.nonnegative_integer
        return {"context": constraints.independent(kind, len(self._own))}

    @property
    def support(self) -> Constraint:
        """All real events, or those of levels 0 to L - 1."""
        levels = self.model.levels
        kind = constraints.real if levels is None else constraints.integer_interval(0, levels - 1)
        return constraints.independent(kind, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        """Return the distribution with its batch expanded to batch_shape."""
        new = self._get_checked_instance(TorchDistribution, _instance)
        shape = Size(batch_shape)
        new.model = self.model
        new.context = None if self.context is None else self.context.expand(shape + self._own)
        super(TorchDistribution, new).__init__(shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value), of the shape that value and batch_shape broadcast to, in nats."""
        if self._validate_args and value.numel():
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape[: value.dim() - len(self.event_shape)], self.batch_shape)
        x = value.expand(shape + self.event_shape).reshape(shape.numel(), *self.event_shape)
        return self.model.log_prob(x, self._rows(shape)).reshape(shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw events, (*sample_shape, *batch_shape, *event_shape), differentiable in the parameters."""
        if not self.has_rsample:
            raise NotImplementedError(
                f"samples of {type(self.model).__name__} are not differentiable in all parameters"
            )
        return self._draw(Size(sample_shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw events, (*sample_shape, *batch_shape, *event_shape)."""
        with torch.no_grad():
            return self._draw(Size(sample_shape))

    def _draw(self, sample_shape: Size) -> Tensor:
        shape = sample_shape + self.batch_shape
        return self.model.sample(shape.numel(), self._rows(shape)).reshape(shape + self.event_shape)

    def _rows(self, shape: Size) -> Tensor | None:
        """Return the context of events of so many dimensions before their own, a row for each."""
        if self.context is None:
            return None
        return self.context.expand(shape + self._own).reshape(shape.numel(), *self._own)

    def _flat(self, batch_shape: Size) -> Tensor | None:
        """Return the context as it came, a row for each of the batch."""
        rest = () if self.context is None else self.context.shape[len(batch_shape) :]
        return None if self.context is None else self.context.reshape(batch_shape.numel(), *rest)

    @property
    def _own(self) -> Size:
        """The shape of one context."""
        return Size(self.model.context_shape or ())


def torch_distribution(model: "Distribution", context: Tensor | None = None) -> TorchDistribution:
    """Return a model as a distribution of torch's; where Pyro is loaded, as one that Pyro takes, too.

    Pyro takes nothing but its own classes. Rather than that anything be patched, there is a subclass with its methods.
    """
    if "pyro.distributions" not in sys.modules:
        return TorchDistribution(model, context)
    from longflow.distributions.pyro_distribution import PyroDistribution

    return PyroDistribution(model, context)

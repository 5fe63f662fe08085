"""Flow matching: a continuous flow whose velocity field is regressed, without solving its equation in training."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from longflow.bijections import Bijection, Chain, Continuous, Embedded, Solver
from longflow.distributions import Case, Flow, StandardNormal
from longflow.distributions.latent import LatentModel
from longflow.errors import UsageError, choose
from longflow.nets import ConcatSquash
from longflow.objectives import Turn


class MatchedFlow(Flow):
    """A `Flow` of one `Continuous` bijection, which can be trained by `FlowMatching` as well as by its likelihood.

    All that comes before the field (units of the data) has no parameters to learn and stands beside it, so that the
    objective sees the field's own input: bijection = continuous ∘ before, under a context as it comes or embedded.
    """

    def __init__(
        self, continuous: Continuous, shape: tuple[int, ...], context_shape: tuple[int, ...] | None = None
    ) -> None:
        if continuous.end != 1:
            raise UsageError(f"flow matching expects time from 0 to 1; an end of {continuous.end} came")
        super().__init__(Chain(Chain(), continuous), StandardNormal(shape), context_shape)

    @property
    def before(self) -> Bijection:
        """What data go through before the field moves them."""
        return cast(Bijection, self._chain.parts[0])

    @property
    def continuous(self) -> Continuous:
        """The bijection that the field makes."""
        return cast(Continuous, self._chain.parts[1])

    def velocity(self, y: Tensor, t: Tensor, context: Tensor | None) -> Tensor:
        """Return what the field is at events y, (B, *shape), as it sees them, at times t, (B,)."""
        seen = self.bijection.embedding(context) if isinstance(self.bijection, Embedded) else context
        return self.continuous.velocity(y, t, seen)

    def preprocess(self, first: Bijection) -> None:
        chain = Chain(Chain(first, self.before), self.continuous)
        embedded = isinstance(self.bijection, Embedded)
        self.bijection = Embedded(cast(Embedded, self.bijection).embedding, chain) if embedded else chain

    @classmethod
    def examples(cls) -> Iterator[Case]:
        torch.manual_seed(0)
        how = Solver("rk4", 12)
        field = ConcatSquash(2, width=4, depth=1)
        yield Case(cls(Continuous(field, 2, training=how, evaluation=how), (2,)))

    @property
    def _chain(self) -> Chain:
        return cast(Chain, self.bijection.inner if isinstance(self.bijection, Embedded) else self.bijection)


def independent(y: Tensor, noise: Tensor) -> Tensor:
    """Return the noise as it is: every row meets any noise."""
    return noise


def optimal(y: Tensor, noise: Tensor) -> Tensor:
    """Return the rows of noise in the order that makes Σ ‖y - noise‖² least over the batch (Hungarian method)."""
    costs = torch.cdist(y.flatten(1), noise.flatten(1)).square()
    return noise[torch.as_tensor(linear_sum_assignment(costs.detach().cpu().numpy())[1], device=noise.device)]


COUPLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"independent": independent, "optimal": optimal}


@dataclass(frozen=True)
class FlowMatching:
    """Mean of ‖v(y_t, t) - (ε - y)‖²/D on straight paths y_t = (1 - t) y + t ε from data y, t = 0, to noise ε, t = 1.

    Where ε is drawn from N(0, 1) whatever y, the minimum is the field E[ε - y | y_t], whose flow takes the data's
    density to the base's (Lipman et al. 2023, theorem 2, with their σ_min = 0 and their time reversed; Liu et al. 2023,
    theorem 3.3). y are the events as the field sees them, in units of the preprocessing. Levels are dequantised. No
    equation is solved: a step costs one pass, whatever the solver. The loss is no likelihood, and its least value is
    above nought.

    t is uniform for each row, and stratified over a batch: t_i = i/B + u modulo 1 with one uniform u.

    Where the preprocessing gives an event no density, outside a support, the loss is infinite, as -log p is.

    Attributes:
        coupling: How data and noise meet in a batch: independently, or so that the squared lengths of paths sum to the
            least (Tong et al. 2024, section 3.2). That makes paths straighter, at a cost of order B³. Data and noise
            keep their distributions, but noise would depend on a context: with one, it is refused.
    """

    coupling: Literal["independent", "optimal"] = "independent"

    parts: ClassVar[tuple[str, ...]] = ("",)

    def __post_init__(self) -> None:
        choose("coupling", self.coupling, COUPLINGS)

    def __call__(self, model: nn.Module, x: Tensor, context: Tensor | None, done: float = 1.0) -> Iterator[Turn]:
        """Yield the loss once."""
        if context is not None and self.coupling == "optimal":
            raise UsageError("the optimal coupling expects no context: noise would no longer be independent of it")
        whole = cast(LatentModel, model)
        flow = cast(MatchedFlow, whole.density)
        y, log_det = flow.before(whole.spread(x.to(flow.dtype(x))), context)
        noise = COUPLINGS[self.coupling](y, torch.randn_like(y))
        t = _times(y)
        wide = t.reshape(-1, *[1] * (y.dim() - 1))
        velocity = flow.velocity((1 - wide) * y + wide * noise, t, context)
        loss = (velocity - (noise - y)).square().mean()
        yield "", torch.where(log_det.isfinite().all(), loss, math.inf)


def _times(y: Tensor) -> Tensor:
    places = torch.arange(len(y), dtype=y.dtype, device=y.device)
    return (places / len(y) + y.new_empty(()).uniform_()) % 1

"""Objectives of a flow q that is fitted to a density p known up to a factor: they draw their own events.

A batch of theirs has no features: x, of shape (B, 0), says how many events to draw.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from longflow.distributions import Distribution
from longflow.errors import UsageError, choose
from longflow.inference.evaluating import evaluating
from longflow.objectives import Turn
from longflow.units import bits_per_dim

LogDensity = Callable[[Tensor], Tensor]
"""log p̃(x) in nats: events (B, *shape) to (B,). p̃ need not be normalised; its integral is Z."""


@dataclass(frozen=True)
class ReverseKL:
    """KL(q ‖ p) up to log Z: minus the ELBO, E_q[log p̃(x) - log q(x)], in bits per dimension.

    (Flows as variational posteriors: Rezende & Mohamed 2015.) It is punished where q is and p is not: a mode of p that
    q never draws from costs nothing.

    Attributes:
        log_density: log p̃.
        gradient: "path" holds the parameters of log q fixed and differentiates through the draws alone ("sticking the
            landing", Roeder, Wu & Duvenaud 2017, eq. 7; for flows: Vaitl et al. 2022). The other term, the score, has
            mean 0; without it the gradient has no variance where q = p. "total" differentiates all of it.
    """

    log_density: LogDensity
    gradient: Literal["path", "total"] = "path"

    parts: ClassVar[tuple[str, ...]] = ("",)

    def __post_init__(self) -> None:
        choose("gradient", self.gradient, GRADIENTS)

    def __call__(self, model: nn.Module, x: Tensor, context: Tensor | None, done: float = 1.0) -> Iterator[Turn]:
        """Yield the loss once."""
        flow = cast(Distribution, model)
        drawn, log_q = GRADIENTS[self.gradient](flow, len(x))
        log_p = evaluated(self.log_density, drawn)
        _check_support(log_p)
        yield "", bits_per_dim((log_p - log_q).mean(), prod(flow.shape))


@dataclass(frozen=True)
class ForwardKL:
    """KL(p ‖ q) up to a constant: the cross-entropy -E_p log q, in bits per dimension, by self-normalised importance.

        -Σ_i w̄_i log q(x_i),   x_i ~ q without gradient,   w̄_i = w_i / Σ_j w_j,   w = p̃/q

    (Jerfel et al. 2021, section 3; as neural importance sampling: Müller et al. 2019, section 5.) It is punished where
    p is and q is not, hence covers modes and tails once a draw has found them; the bias of the weights falls as 1/B.
    The weights are those of the evaluation mode: an estimate of log q without bias, as some flows train by, would be
    exponentiated, and have one. The log q that is differentiated is that of the mode of the model.

    Attributes:
        log_density: log p̃. It may be -∞.
    """

    log_density: LogDensity

    parts: ClassVar[tuple[str, ...]] = ("",)

    def __call__(self, model: nn.Module, x: Tensor, context: Tensor | None, done: float = 1.0) -> Iterator[Turn]:
        """Yield the loss once."""
        flow = cast(Distribution, model)
        with torch.no_grad(), evaluating(flow):
            drawn, log_q = flow.sample_and_log_prob(len(x))
            log_weights = evaluated(self.log_density, drawn) - log_q
            check_weights(log_weights)
        cross = (log_weights.softmax(0) * flow(drawn)).sum()
        yield "", bits_per_dim(cross, prod(flow.shape))


def evaluated(log_density: LogDensity, x: Tensor) -> Tensor:
    """Return log p̃(x), (B,); raise UsageError where it has another shape, is NaN or +∞, naming the rows."""
    log_p = log_density(x)
    if not isinstance(log_p, Tensor) or log_p.shape != x.shape[:1]:
        came = f"shape {tuple(log_p.shape)}" if isinstance(log_p, Tensor) else type(log_p).__name__
        raise UsageError(
            f"a log-density expects to return a tensor of shape ({len(x)},) for {len(x)} events; {came} came"
        )
    _refuse(log_p.isnan() | (log_p == math.inf), log_p, "a log-density expects numbers below ∞")
    return log_p


def check_weights(log_weights: Tensor) -> None:
    """Raise UsageError where no draw has any weight."""
    if len(log_weights) and bool((log_weights == -math.inf).all()):
        raise UsageError(f"of {len(log_weights)} draws none has any density: the flow is where the density is 0")


def _check_support(log_p: Tensor) -> None:
    outside = "the reverse KL expects a density above 0 wherever the flow draws (a bijection to its support gives that)"
    _refuse(log_p == -math.inf, log_p, outside)


def _refuse(wrong: Tensor, values: Tensor, expected: str) -> None:
    rows = wrong.nonzero().flatten().tolist()
    if rows:
        named = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
        raise UsageError(f"{expected}; {values[rows[0]].item()} came in {len(rows)} of {len(values)} rows ({named})")


def _total(flow: Distribution, n: int) -> tuple[Tensor, Tensor]:
    return flow.sample_and_log_prob(n)


def _path(flow: Distribution, n: int) -> tuple[Tensor, Tensor]:
    """Return draws and log q of them, whose gradient is that of the draws alone.

    log q is taken to first order about the draws, with the score ∂ log q/∂x as a constant: so no parameter is touched.
    """
    x = flow.sample(n)
    still = x.detach().requires_grad_()
    log_q = flow.log_prob(still)
    (score,) = torch.autograd.grad(log_q.sum(), still)
    return x, log_q.detach() + ((x - still.detach()) * score).flatten(1).sum(1)


GRADIENTS: dict[str, Callable[[Distribution, int], tuple[Tensor, Tensor]]] = {"path": _path, "total": _total}

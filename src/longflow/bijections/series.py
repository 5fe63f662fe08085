"""log det(I + J) of a contraction as a power series: exact terms, a roulette for the rest, and its gradient."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from longflow.errors import UsageError, choose
from longflow.nets.lipschitz import Pull

Branch = Callable[[Tensor, Tensor | None], Tensor]
Probe = Callable[[Tensor], Tensor]
Roulette = Literal["poisson", "geometric", "none"]
Gradient = Literal["neumann", "series"]


def rademacher(like: Tensor) -> Tensor:
    """Return ±1 with equal chances, of the shape of `like`: of independent entries those of the least varying trace."""
    return torch.randint_like(like, 2) * 2 - 1


PROBES: dict[str, Probe] = {"rademacher": rademacher, "gaussian": torch.randn_like}


@dataclass(frozen=True)
class Series:
    """How log det(I + J) = Σ_k (-1)^{k+1}/k tr J^k is estimated.

    tr J^k is E vᵀJᵏv for probes v of independent entries of mean 0 and variance 1 (Hutchinson 1990). `terms` are always
    computed; N more by a roulette, each weighted by 1/P(N ≥ j), so that the whole is unbiased (Chen et al. 2019,
    eq. 6); with roulette "none" the series is cut, as by Behrmann et al. (2019), and biased.

    The gradient is Σ_k (-1)^k vᵀJᵏ ∂J v with the same weights (the Neumann series, Chen et al. eq. 8): memory grows
    neither with terms nor with the branch. It is taken row by row, so that any weights of rows act as they should.

    A series ends early where a power has fallen below the square of the rounding: what is left is far below that of the
    sum, and numbers that small (denormal ones) would make a CPU twenty times slower.

    Attributes:
        terms: Terms n that are always computed.
        roulette: Distribution of N: Poisson or geometric on 0, 1, …, or no roulette. The Poisson's weights grow like
            k!, so that its variance, strictly, is infinite, though with slopes well below 1 nobody sees it; the
            geometric's is finite where slopes are below √(rate/(1 + rate)).
        rate: Mean of N.
        probes: Probes that are averaged.
        probe: "rademacher", "gaussian", or any function of a tensor that returns probes of its shape.
        gradient: "neumann", or "series": backpropagation through every term, whose memory grows.
    """

    terms: int = 2
    roulette: Roulette = "poisson"
    rate: float = 2.0
    probes: int = 1
    probe: str | Probe = "rademacher"
    gradient: Gradient = "neumann"

    def __post_init__(self) -> None:
        for name in ("terms", "probes"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UsageError(f"a log-determinant's series expects {name} >= 1; {value!r} came")
        choose("roulette", self.roulette, SURVIVALS)
        if not 0 < self.rate < math.inf:
            raise UsageError(f"a roulette expects a rate > 0, the mean number of further terms; {self.rate} came")
        choose("gradient", self.gradient, ("neumann", "series"))
        if isinstance(self.probe, str):
            choose("probe", self.probe, PROBES)

    def draw(self, like: Tensor) -> Tensor:
        """Draw probes of the shape of `like`."""
        return (PROBES[self.probe] if isinstance(self.probe, str) else self.probe)(like)

    def weights(self) -> list[float]:
        """Draw N, from torch's generator; return the weight of each term of 1..n+N, 1/P(N ≥ j) for the j-th after n."""
        more = DRAWS[self.roulette](self.rate)
        return [1.0] * self.terms + [1 / SURVIVALS[self.roulette](self.rate, j) for j in range(1, more + 1)]

    def bias_bound(self, dims: int, slope: float) -> float:
        """Return a bound, in nats, on the bias of one block of `dims` dimensions and slope at most `slope`.

        Nought with a roulette; else -D (log(1 - L) + Σ_{k≤n} L^k/k) (Behrmann et al. 2019, appendix B).
        """
        if self.roulette != "none":
            return 0.0
        tail = torch.tensor([slope], dtype=torch.float64)
        orders = torch.arange(1, self.terms + 1, dtype=torch.float64)
        return float(-dims * (torch.log1p(-tail) + (tail**orders / orders).sum()))


def _poisson(rate: float) -> int:
    return int(torch.poisson(torch.tensor(rate, dtype=torch.float64)))


def _geometric(rate: float) -> int:
    share = torch.tensor(rate / (1 + rate), dtype=torch.float64)
    return int(torch.floor(torch.log1p(-torch.rand((), dtype=torch.float64)) / share.log()))


def _poisson_survival(rate: float, j: int) -> float:
    return float(torch.special.gammainc(torch.tensor(float(j)).double(), torch.tensor(rate).double()))


DRAWS: dict[str, Callable[[float], int]] = {"poisson": _poisson, "geometric": _geometric, "none": lambda rate: 0}
SURVIVALS: dict[str, Callable[[float, int], float]] = {
    "poisson": _poisson_survival,
    "geometric": lambda rate, j: (rate / (1 + rate)) ** j,
    "none": lambda rate, j: 1.0,
}
"""P(N ≥ j) of each roulette."""


def estimated(
    branch: Branch, x: Tensor, context: Tensor | None, module: nn.Module, series: Series
) -> tuple[Tensor, Tensor]:
    """Return g(x; context), of the shape of x, and an estimate of log|det(I + ∂g/∂x)|, (B,), in nats.

    The estimate's value is unbiased (or cut), and so is its gradient, in the parameters of `module`, which `branch`
    calls, in x and in the context. What Neumann's gradient keeps for the way back has the size of x, whatever the
    branch and the terms: the branch is computed again. It can be differentiated once.
    """
    drawn = [(series.draw(x.detach()), series.weights()) for _ in range(series.probes)]
    through = series.gradient == "series" and torch.is_grad_enabled()
    with torch.enable_grad():
        point = x if through and x.requires_grad else x.detach().requires_grad_()
        value = branch(point, context)
        found = [_powers(value, point, v, weights, through=through) for v, weights in drawn]
    log_det = torch.stack([log_det for log_det, _ in found]).mean(0)
    if through:
        return value, log_det
    value, log_det = value.detach(), log_det.detach()
    if not torch.is_grad_enabled():
        return value, log_det
    neumanns = torch.stack([neumann for _, neumann in found])
    probes = torch.stack([v for v, _ in drawn])
    given = (branch, module, value, log_det, neumanns, probes, x, context, *module.parameters())
    return cast("tuple[Tensor, Tensor]", _Neumann.apply(*given))


def _powers(
    value: Tensor, point: Tensor, v: Tensor, weights: Sequence[float], *, through: bool
) -> tuple[Tensor, Tensor]:
    """Return Σ_k w_k (-1)^{k+1}/k vᵀJᵏv for each row, and Σ_k w_k (-1)^{k+1} vᵀJᵏ⁻¹; J is ∂value/∂point."""
    power, log_det, neumann = v, value.new_zeros(len(value)), torch.zeros_like(v)
    for k, weight in enumerate(weights, 1):
        signed = weight if k % 2 else -weight
        neumann = neumann + signed * power
        (power,) = torch.autograd.grad(value, point, power, retain_graph=True, create_graph=through)
        log_det = log_det + signed / k * _dot(power, v)
        if not through and not bool((power.abs() > torch.finfo(power.dtype).eps ** 2).any()):
            break
    return log_det, neumann


class _Neumann(torch.autograd.Function):
    """A value and log-determinant that are computed already, with the gradients of g and of vᵀ (Neumann series) J v."""

    @staticmethod
    def forward(
        ctx: Any,
        branch: Branch,
        module: nn.Module,
        value: Tensor,
        log_det: Tensor,
        neumanns: Tensor,
        probes: Tensor,
        x: Tensor,
        context: Tensor | None,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.branch, ctx.module, ctx.parameters = branch, module, parameters
        ctx.save_for_backward(neumanns, probes, x, context, *parameters)  # so that a change in between is an error
        return value.view_as(value), log_det.view_as(log_det)

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor, grad_log_det: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("an estimated log-determinant can be differentiated once only")
        if any(a is not b for a, b in zip(ctx.parameters, ctx.module.parameters(), strict=True)):
            raise RuntimeError("the branch's parameters were replaced between forward and backward (functional_call?)")
        neumanns, probes, x, context, *_ = ctx.saved_tensors
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            given = None if context is None else context.detach().requires_grad_(context.is_floating_point())
            value = ctx.branch(point, given)
            log_det = value.new_zeros(len(value))
            for neumann, v in zip(neumanns, probes, strict=True):
                (pulled,) = torch.autograd.grad(value, point, neumann, create_graph=True)
                log_det = log_det + _dot(pulled, v) / len(probes)
        wanted = [point, *([] if given is None else [given]), *(p for p in ctx.parameters if p.requires_grad)]
        pairs = zip((value, log_det), (grad_value, grad_log_det), strict=True)
        outputs, given_grads = zip(*[pair for pair in pairs if pair[0].requires_grad], strict=True)
        grads = iter(torch.autograd.grad(outputs, wanted, given_grads, allow_unused=True))
        to_x, to_context = next(grads), None if given is None else next(grads)
        own = [next(grads) if p.requires_grad else None for p in ctx.parameters]
        return None, None, None, None, None, None, to_x, to_context, *own


def jacobian(branch: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Return g(x) and the Jacobian of each row, (B, D, D), by D products with it.

    Rows must not meet in g: the products of all rows are one. Functions of torch.func may enclose it.
    """
    value, pull = cast("tuple[Tensor, Pull]", torch.func.vjp(branch, x))
    dims = prod(x.shape[1:])
    basis = torch.eye(dims, dtype=x.dtype, device=x.device).reshape(dims, 1, *x.shape[1:]).expand(dims, *x.shape)
    rows = torch.func.vmap(lambda e: pull(e)[0], chunk_size=_at_once(x))(basis)
    return value, rows.reshape(dims, len(x), dims).transpose(0, 1)


def log_det_of(jacobians: Tensor) -> Tensor:
    """Return log|det(I + J)|, (B,), for Jacobians (B, D, D)."""
    one = torch.eye(jacobians.shape[-1], dtype=jacobians.dtype, device=jacobians.device)
    return torch.linalg.slogdet(one + jacobians).logabsdet


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


AT_ONCE = 2**22
"""Numbers of a Jacobian's input side that are pulled back at once."""


def _at_once(x: Tensor) -> int:
    return max(1, AT_ONCE // max(1, x.numel() * 16))

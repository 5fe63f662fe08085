"""log det(I + J) of a contraction as a power series: exact terms, a roulette for the rest, and its gradient."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Literal, cast

import torch
from torch import Tensor

from longflow.errors import UsageError, choose

Pull = Callable[[Tensor], tuple[Tensor]]
Probe = Callable[[Tensor], Tensor]
Roulette = Literal["poisson", "geometric", "none"]
Gradient = Literal["neumann", "series"]


def rademacher(like: Tensor) -> Tensor:
    """Return ±1 with equal chances, of the shape of `like`: of all probes the least varying trace."""
    return torch.randint_like(like, 2) * 2 - 1


PROBES: dict[str, Probe] = {"rademacher": rademacher, "gaussian": torch.randn_like}


@dataclass(frozen=True)
class Series:
    """How log det(I + J) = Σ_k (-1)^{k+1}/k tr J^k is estimated.

    tr J^k is E vᵀJᵏv for probes v of independent entries of mean 0 and variance 1 (Hutchinson 1990). `terms` are always
    computed; N more by a roulette, each weighted by 1/P(N ≥ j), so that the whole is unbiased (Chen et al. 2019,
    eq. 6); with roulette "none" the series is cut, as by Behrmann et al. (2019), and biased.

    The gradient is Σ_k (-1)^k vᵀJᵏ ∂J v with the same weights (the Neumann series, Chen et al. eq. 8): the powers need
    no graph, so that memory does not grow with terms. It is taken row by row, so that any weights of rows act as they
    should.

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
        if not self.rate > 0:
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
    branch: Callable[[Tensor], Tensor], x: Tensor, series: Series, *, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Return g(x), of the shape of x, and an estimate of log|det(I + ∂g/∂x)|, (B,), in nats.

    The estimate's value is unbiased (or cut), and so is its gradient, in parameters and in x.
    """
    with torch.enable_grad():
        point = x if x.requires_grad else x.detach().requires_grad_()
        value = branch(point)
        log_det = torch.stack(
            [
                one_probe(
                    value,
                    point,
                    series.draw(x.detach()),
                    series.weights(),
                    series.gradient,
                    with_gradient=with_gradient,
                )
                for _ in range(series.probes)
            ]
        ).mean(0)
    return (value, log_det) if with_gradient else (value.detach(), log_det.detach())


def one_probe(
    value: Tensor, point: Tensor, v: Tensor, weights: list[float], gradient: Gradient, *, with_gradient: bool
) -> Tensor:
    """Return Σ_k w_k (-1)^{k+1}/k vᵀJᵏv for each row, with its gradient where asked; J is ∂value/∂point."""
    through = gradient == "series" and with_gradient
    power, log_det, neumann = v, value.new_zeros(len(value)), torch.zeros_like(v)
    for k, weight in enumerate(weights, 1):
        signed = weight if k % 2 else -weight
        neumann = neumann + signed * power
        (power,) = torch.autograd.grad(value, point, power, retain_graph=True, create_graph=through)
        log_det = log_det + signed / k * _dot(power, v)
    if not with_gradient or through:
        return log_det
    (pulled,) = torch.autograd.grad(value, point, neumann, create_graph=True)
    surrogate = _dot(pulled, v)
    return log_det.detach() + surrogate - surrogate.detach()


def jacobian(branch: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Return g(x) and the Jacobian of each row, (B, D, D), by D products with it.

    Rows must not meet in g: the products of all rows are one. Functions of torch.func may enclose it.
    """
    value, pull = cast("tuple[Tensor, Pull]", torch.func.vjp(branch, x))
    dims = prod(x.shape[1:])
    basis = torch.eye(dims, dtype=x.dtype, device=x.device).reshape(dims, 1, *x.shape[1:]).expand(dims, *x.shape)
    rows = torch.func.vmap(lambda e: pull(e)[0], chunk_size=_at_once(x))(basis)
    return value, rows.reshape(dims, len(x), dims).transpose(0, 1)


def jacobian_step_by_step(
    branch: Callable[[Tensor], Tensor], x: Tensor, *, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Return the same as `jacobian`, by D passes of plain autograd, as checkpoints need it."""
    with torch.enable_grad():
        point = x if x.requires_grad else x.detach().requires_grad_()
        value = branch(point)
        units = torch.eye(prod(x.shape[1:]), dtype=x.dtype, device=x.device).reshape(-1, 1, *x.shape[1:])
        rows = [
            torch.autograd.grad(value, point, e.expand_as(value), retain_graph=True, create_graph=with_gradient)[0]
            for e in units
        ]
        stacked = torch.stack([row.flatten(1) for row in rows], 1)
    return (value, stacked) if with_gradient else (value.detach(), stacked.detach())


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

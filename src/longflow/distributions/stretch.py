"""How an embedding of d numbers in D stretches volume: exactly, or by an estimate whose gradient is cheap."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import torch
import torch.autograd.forward_ad as forward_mode
from torch import Tensor

from longflow.bijections.series import PROBES, Probe
from longflow.errors import UsageError, choose
from longflow.volume import log_volume

Embed = Callable[[Tensor], Tensor]
"""g: coordinates u, (B, d), to points x, (B, ...) of D >= d numbers. Rows do not meet, and forward mode can pass."""

Stretch = Callable[[Embed, Tensor], tuple[Tensor, Tensor]]
"""Returns g(u), (B, ...), and log √det JᵀJ, (B,), in nats, J being ∂g/∂u at u, (B, D, d)."""

AT_ONCE = 2**16
"""Rows, each with its tangent, that are pushed at once."""


def exact(embed: Embed, u: Tensor) -> tuple[Tensor, Tensor]:
    """Return g(u) and its log-volume, by the d columns of J in forward mode and their QR factors: a `Stretch`."""
    dims = u.shape[1]
    axes = torch.eye(dims, dtype=u.dtype, device=u.device)[:, None].expand(dims, *u.shape)
    x, columns = pushed(embed, u, axes)
    return x, log_volume(columns.permute(1, 2, 0))


@dataclass(frozen=True)
class Hutchinson:
    """The log-volume by products with J alone, without its d columns (Caterini et al. 2021, section 4): a `Stretch`.

    The gradient of ½ log det JᵀJ is ½ tr((JᵀJ)⁻¹ ∂(JᵀJ)), hence on average over probes ε, of independent entries of
    mean 0 and variance 1, that of ½ aᵀ JᵀJ ε with a constant a = (JᵀJ)⁻¹ ε. It is taken here as ½ ⟨Ja, Jε⟩, two pushes
    in forward mode, row by row, so that any weights of rows act as they should. Conjugate gradients give a. It is
    unbiased but for their tolerance, and can be differentiated once.

    The value is not that product, which is d/2 on average whatever J is, but the Lanczos quadrature of
    ½ εᵀ log(JᵀJ) ε, whose nodes and weights conjugate gradients pass on the way (Ubaru, Chen & Saad 2017): an estimate
    of the log-volume, unbiased but for the same tolerance.

    JᵀJ has the squared singular values of J: in float32, those below about 1/3000 of the largest one are lost. `exact`
    does not square.

    Attributes:
        probes: Probes that are averaged.
        probe: "rademacher", "gaussian", or any function of a tensor that returns probes of its shape.
        tolerance: Conjugate gradients end, row by row, where ‖ε - JᵀJ a‖ ≤ tolerance · ‖ε‖.
        iterations: At most so many; by default 2d + 8, as d would do without rounding. A warning tells of rows that
            needed more.
    """

    probes: int = 1
    probe: str | Probe = "rademacher"
    tolerance: float = 1e-4
    iterations: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("probes", self.probes), ("iterations", self.iterations)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UsageError(f"a log-volume's estimate expects {name} >= 1; {value!r} came")
        if not 0 < self.tolerance < 1:
            raise UsageError(f"conjugate gradients expect a tolerance in (0, 1); {self.tolerance} came")
        if isinstance(self.probe, str):
            choose("probe", self.probe, PROBES)

    def __call__(self, embed: Embed, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return g(u) and an estimate of its log-volume."""
        draw = PROBES[self.probe] if isinstance(self.probe, str) else self.probe
        probes = torch.stack([draw(u.detach()) for _ in range(self.probes)])
        many = u.detach().repeat(self.probes, 1)
        most = 2 * u.shape[1] + 8 if self.iterations is None else self.iterations
        solved, logs = conjugate_gradients(gram_of(embed, many), probes.flatten(0, 1), self.tolerance, most)
        value = 0.5 * logs.unflatten(0, probes.shape[:2]).mean(0)
        if not torch.is_grad_enabled():
            return embed(u), value
        x, images = pushed(embed, u, torch.cat((solved.unflatten(0, probes.shape[:2]), probes)))
        left, right = images.chunk(2)
        surrogate = 0.5 * (left * right).sum(2).mean(0)
        if surrogate.requires_grad:
            surrogate.register_hook(_once)
        return x, value + (surrogate - surrogate.detach())


def pushed(embed: Embed, u: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
    """Return g(u), (B, ...), and Jt for each of K tangents t, (K, B, d), as (K, B, D), in forward mode.

    Both can be differentiated in u and in what g depends on.
    """
    if torch.is_inference_mode_enabled():  # in which torch has no forward mode
        with torch.inference_mode(mode=False), torch.no_grad():
            return pushed(embed, u.clone(), tangents.clone())
    parts = [_pushed(embed, u, part) for part in tangents.split(max(1, AT_ONCE // max(1, len(u))))]
    return parts[0][0], torch.cat([images for _, images in parts])


def _pushed(embed: Embed, u: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
    count = len(tangents)
    with forward_mode.dual_level():
        x, image = forward_mode.unpack_dual(
            embed(forward_mode.make_dual(u.repeat(count, 1), tangents.reshape(-1, u.shape[1])))
        )
    return x[: len(u)], image.reshape(count, len(u), prod(x.shape[1:]))


def gram_of(embed: Embed, u: Tensor) -> Callable[[Tensor], Tensor]:
    """Return v ↦ JᵀJv, both (B, d), without a gradient.

    g is computed once: v ↦ Jv is the transpose of w ↦ Jᵀw, which reverse mode keeps.
    """
    with torch.enable_grad():
        point = u.detach().requires_grad_()
        x = embed(point)
        w = torch.zeros_like(x).requires_grad_()
        (pulled,) = torch.autograd.grad(x, point, w, create_graph=True)

    def product(v: Tensor) -> Tensor:
        (image,) = torch.autograd.grad(pulled, w, v, retain_graph=True)
        return torch.autograd.grad(x, point, image, retain_graph=True)[0]

    return product


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], b: Tensor, tolerance: float, iterations: int
) -> tuple[Tensor, Tensor]:
    """Return A⁻¹b, (B, d), and the Lanczos quadrature of bᵀ log(A) b, (B,), of symmetric positive definite A.

    Each row has its own A, which `product` applies; it ends where its residual is at most tolerance · ‖b‖. The
    coefficients of the way make the tridiagonal matrix T of Lanczos, T_kk = 1/α_k + β_{k-1}/α_{k-1} and
    T_{k,k+1} = √β_k/α_k, and the quadrature is ‖b‖² (log T)_11 (Golub & Meurant 2010, chapters 4 and 7).
    """
    solution, residual, direction = torch.zeros_like(b), b, b
    squared = start = b.square().sum(1)
    goal = tolerance**2 * start
    ratio = torch.zeros_like(start)
    diagonal, beside = [], []
    for _ in range(iterations):
        going = squared > goal
        if not bool(going.any()):
            break
        image = product(direction)
        inverse = torch.where(going, (direction * image).sum(1) / squared, 1)
        step = torch.where(going, 1 / inverse, 0)[:, None]
        solution, residual = solution + step * direction, residual - step * image
        diagonal.append(torch.where(going, inverse + ratio, 1))
        before, squared = squared, residual.square().sum(1)
        share = torch.where(going, squared / before, 0)
        goes_on = squared > goal
        beside.append(torch.where(goes_on, share.sqrt() * inverse, 0))
        ratio = torch.where(goes_on, share * inverse, 0)
        direction = residual + share[:, None] * direction
    left = squared > goal
    if bool(left.any()):
        warnings.warn(
            f"conjugate gradients left {int(left.sum())} of {len(b)} rows above the tolerance {tolerance} after"
            f" {iterations} iterations: the gradient of their log-volume is biased",
            stacklevel=2,
        )
    return solution, start * _first_of_log(diagonal, beside, start)


def _first_of_log(diagonal: list[Tensor], beside: list[Tensor], like: Tensor) -> Tensor:
    """Return (log T)_11 of tridiagonal matrices, (B,), computed in float64."""
    if not diagonal:
        return torch.zeros_like(like)
    off = torch.stack(beside, 1)[:, :-1].double()
    tridiagonal = torch.diag_embed(torch.stack(diagonal, 1).double())
    tridiagonal = tridiagonal + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    values, vectors = torch.linalg.eigh(tridiagonal)
    least = torch.finfo(values.dtype).tiny
    return (vectors[:, 0].square() * values.clamp_min(least).log()).sum(1).to(like.dtype)


def _once(grad: Tensor) -> None:
    if torch.is_grad_enabled():
        raise RuntimeError("an estimated log-volume can be differentiated once only")

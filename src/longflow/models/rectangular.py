"""Rectangular flows: a manifold and the density on it (Caterini et al., NeurIPS 2021)."""

from collections.abc import Callable
from math import prod
from typing import Literal

from torch import nn

from longflow.bijections import Affine, Bijection, Chain, Coupling, Flatten, Learned, PLULinear, ScaledTanh
from longflow.distributions import Flow, GaussianMixture, StandardNormal
from longflow.distributions.injective import Injective
from longflow.distributions.stretch import Hutchinson, Stretch, exact
from longflow.errors import UsageError, choose
from longflow.models.checks import at_least
from longflow.nets import MLP


def rectangular(
    shape: tuple[int, ...],
    *,
    latent: int = 2,
    couplings: int = 8,
    latent_couplings: int = 4,
    width: int = 64,
    depth: int = 2,
    components: int = 1,
    log_volume: Literal["exact", "hutchinson"] = "exact",
    probes: int = 1,
    tolerance: float = 1e-4,
) -> Injective:
    """Couplings that bend space until the data lie in `latent` of its axes, and couplings of those axes alone.

    Each step normalises, mixes by a learned matrix (PLU), and couples with log-scales γ tanh s, which are bounded both
    ways, as both directions are trained. Conditioners are smooth (SiLU): the stretch of volume depends on their slopes,
    which would jump with rectified units. For what the density can be compared with, see `Injective`.

    Args:
        shape: Shape of an event, (D,) or (C, H, W), of at least two numbers; an image is seen as a vector.
        latent: Dimensions d of the manifold, 1 <= d < D.
        couplings: Steps of the bijection of all D numbers.
        latent_couplings: Steps of the flow of the d coordinates; where d is 1, it is one scale and shift.
        width: Units in a hidden layer of a conditioner.
        depth: Hidden layers of a conditioner.
        components: Gaussians in the base density of the d numbers; 1 is the standard normal.
        log_volume: How training has the log-volume: exactly, by d passes in forward mode, or (hutchinson) by an
            estimate with conjugate gradients. Evaluation has it exactly.
        probes: Probes that the estimate averages.
        tolerance: Relative residual at which the estimate's conjugate gradients end.
    """
    dims = prod(shape)
    _check(dims, latent, couplings=couplings, width=width, depth=depth, components=components, probes=probes)
    at_least("rectangular", 0, latent_couplings=latent_couplings)
    stretches: dict[str, Callable[[], Stretch]] = {
        "exact": lambda: exact,
        "hutchinson": lambda: Hutchinson(probes, tolerance=tolerance),
    }
    stretch = stretches[choose("log-volume", log_volume, stretches)]()

    def step(features: int) -> Bijection:
        first, second = features // 2, features - features // 2
        conditioner = MLP(first, 2 * second, hidden=width, depth=depth, activation=nn.SiLU)
        couple = Coupling(Affine(ScaledTanh(1.0)), conditioner)
        return Chain(Learned(Affine(), (features,)), PLULinear(features), couple)

    def steps(features: int, number: int) -> Bijection:
        return Chain(*(step(features) for _ in range(number)), Learned(Affine(), (features,)))

    base = StandardNormal((latent,)) if components == 1 else GaussianMixture((latent,), components)
    density = Flow(steps(latent, latent_couplings if latent > 1 else 0), base)
    bijection = steps(dims, couplings)
    whole = bijection if len(shape) == 1 else Chain(Flatten(shape), bijection)
    return Injective(whole, density, shape, training=stretch)


def _check(dims: int, latent: int, **sizes: int) -> None:
    if dims < 2:
        raise UsageError(f"rectangular expects events of at least 2 numbers; {dims} came")
    at_least("rectangular", 1, latent=latent, **sizes)
    if latent >= dims:
        raise UsageError(f"rectangular expects latent < {dims}, the numbers in an event; {latent} came")

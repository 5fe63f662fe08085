"""Neural autoregressive flows (Huang, Krueger, Lacoste & Courville, ICML 2018)."""

from collections.abc import Callable
from math import prod
from typing import Any, Literal

from longflow.bijections import Autoregressive, Bijection, Chain, DeepSigmoid, Elementwise, Flatten, Reverse, Under
from longflow.distributions import Flow, StandardNormal
from longflow.errors import choose
from longflow.models.checks import at_least
from longflow.nets import MADE

KINDS: dict[str, Callable[[int], Elementwise]] = {
    "dsf": lambda signals: DeepSigmoid(signals),
    "ddsf": lambda signals: DeepSigmoid(signals, layers=2),
}

PRESETS: dict[str, dict[str, Any]] = {"dense": {"kind": "ddsf"}}


def naf(
    shape: tuple[int, ...],
    *,
    kind: Literal["dsf", "ddsf"] = "dsf",
    transforms: int = 3,
    signals: int = 8,
    hidden: int = 64,
    depth: int = 2,
    context: int = 0,
) -> Flow:
    """Autoregressive transforms, each feature moved by a small monotone network whose weights the features before set.

    z_d = τ(x_d; θ_d), θ = MADE(x, context), with τ a deep sigmoidal flow or its dense form of two layers
    (section 3.1); the order of the features is reversed between transforms. τ maps the line onto the line, as it is
    computed in log space, so that the density integrates to one. Starts near the identity. Sampling solves for one
    feature after the other, each by some 40 evaluations of τ: it is slow where densities are fast.

    Args:
        shape: Shape of an event, (D,) or (C, H, W); an image is seen as a vector.
        kind: Whether τ is a deep sigmoidal flow, or a deep dense one.
        transforms: Number of autoregressive transforms.
        signals: Sigmoids in a layer of τ; its parameters a feature are 3·signals (dsf), 5·signals + 2·signals² (ddsf).
        hidden: Units in a hidden layer of a MADE.
        depth: Hidden layers of a MADE.
        context: Features of a context vector that the MADEs see; 0 for none.
    """
    at_least("naf", 1, transforms=transforms, signals=signals, hidden=hidden, depth=depth)
    at_least("naf", 0, context=context)
    make = KINDS[choose("kind", kind, KINDS)]
    dims = prod(shape)

    def transform() -> Bijection:
        inner = make(signals)
        return Autoregressive(
            inner, MADE(dims, inner.parameters_per_feature, hidden=hidden, depth=depth, context=context)
        )

    parts = [transform()]
    for _ in range(transforms - 1):
        parts += [Reverse(), transform()]
    chain = Chain(*parts)
    whole = chain if len(shape) == 1 else Under(Flatten(shape), chain)
    return Flow(whole, StandardNormal(shape), (context,) if context else None)

"""NSF: neural spline flows (Durkan, Bekasov, Murray & Papamakarios, NeurIPS 2019)."""

from typing import Any, Literal

from longflow.bijections import (
    Autoregressive,
    Bijection,
    Chain,
    FullCoupling,
    Interleave,
    RationalQuadratic,
    Under,
)
from longflow.distributions import Flow
from longflow.errors import UsageError, choose
from longflow.models.checks import at_least
from longflow.models.tables import Mixing, Networks, flow_of, mixing_of, numbers_of
from longflow.nets import ResidualMLP

KINDS = ("coupling", "autoregressive")

PRESETS: dict[str, dict[str, Any]] = {
    "power": {"layers": 10, "hidden": 256},
    "power-autoregressive": {"kind": "autoregressive", "layers": 10, "hidden": 256},
}


def nsf(
    shape: tuple[int, ...],
    *,
    kind: Literal["coupling", "autoregressive"] = "coupling",
    layers: int = 5,
    hidden: int = 128,
    blocks: int = 2,
    bins: int = 8,
    bound: float = 3.0,
    slope: float = 1e-2,
    mixing: Mixing = "lu",
    dropout: float = 0.0,
    context: int = 0,
) -> Flow:
    """Layers of monotone rational-quadratic splines, whose knots a residual network sets, with LU layers between them.

    Coupling layers move every second number by splines that the others set, and those by learned splines of their own
    (as the paper's code does); sampling costs as much as the density. Autoregressive layers move each number by a
    spline that those before it set; sampling is a walk through the features. Outside [-bound, bound] a spline is the
    identity: data should be of order one (`--preprocess standardise`).

    The presets are the paper's for POWER. Its bins have a least width and height (1e-3 of the interval) and least
    slopes of 1e-3 at knots; here mean slopes of bins and slopes at knots lie in [slope, 1/slope].

    Args:
        shape: Shape of an event, (D,) or (C, H, W), seen as a vector; of at least two numbers for couplings.
        kind: Couplings, or autoregressive layers.
        layers: Layers of splines.
        hidden: Units in a layer of a network.
        blocks: Residual blocks (of two layers) of a network.
        bins: Bins of a spline.
        bound: Half of the interval, of data and of latents, on which a spline is not the identity.
        slope: Least mean slope of a spline's bins, and at knots; its inverse magnifies rounding up to 1/slope³ times.
        mixing: What comes before each layer and after the last: the reversed order, another order, an LU-factorised
            matrix that starts as a permutation, or a rotation.
        dropout: Share of hidden units dropped in training.
        context: Features of a context vector that the networks see; 0 for none.
    """
    dims, mix = numbers_of("nsf", shape), mixing_of(mixing)
    at_least("nsf", 1, layers=layers, bins=bins)
    if choose("kind", kind, KINDS) == "coupling" and dims < 2:
        raise UsageError("nsf expects events of at least 2 numbers for couplings; kind 'autoregressive' takes 1")
    networks = Networks(
        model="nsf",
        net="resmade",
        hidden=hidden,
        depth=blocks,
        activation="relu",
        dropout=dropout,
        context=context,
    )
    first, second = dims // 2, dims - dims // 2

    def spline() -> RationalQuadratic:
        return RationalQuadratic(bins, bound=bound, slope=slope)

    def coupling(k: int) -> Bijection:
        moved = spline()
        parameters = moved.parameters_per_feature * second
        net = ResidualMLP(first, parameters, hidden=hidden, blocks=blocks, dropout=dropout, context=context)
        return Under(Interleave(k % 2), FullCoupling(moved, net, dims))

    def autoregressive(k: int) -> Bijection:
        moved = spline()
        return Autoregressive(moved, networks.masked(dims, moved.parameters_per_feature))

    layer = coupling if kind == "coupling" else autoregressive
    parts = [part for k in range(layers) for part in (mix(dims), layer(k))]
    return flow_of(shape, Chain(*parts, mix(dims)), context)

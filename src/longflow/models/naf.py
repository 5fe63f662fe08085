"""NAF: neural autoregressive flows (Huang, Krueger, Lacoste & Courville, ICML 2018)."""

from collections.abc import Callable
from typing import Any, Literal

from longflow.bijections import Affine, Autoregressive, Bijection, Chain, DeepSigmoid, Elementwise, Learned
from longflow.distributions import Flow
from longflow.errors import choose
from longflow.models.checks import at_least
from longflow.models.tables import Activation, Mixing, Net, Networks, mixing_of, numbers_of, stacked

KINDS: dict[str, Callable[[int], Elementwise]] = {
    "dsf": lambda signals: DeepSigmoid(signals),
    "ddsf": lambda signals: DeepSigmoid(signals, layers=2),
}

PRESETS: dict[str, dict[str, Any]] = {"dense": {"kind": "ddsf"}}


def naf(
    shape: tuple[int, ...],
    *,
    kind: Literal["dsf", "ddsf"] = "dsf",
    layers: int = 3,
    signals: int = 8,
    hidden: int = 100,
    depth: int = 2,
    net: Net = "made",
    activation: Activation = "relu",
    mixing: Mixing = "reverse",
    dropout: float = 0.0,
    context: int = 0,
) -> Flow:
    """Layers z_d = τ(x_d; θ_d), τ a small monotone network whose weights a masked network makes of the features before.

    τ is a deep sigmoidal flow or its dense form of two layers (section 3.1). It is computed in log space in both tails,
    and so maps the line onto the line: the density integrates to one, and every latent has its x. After each layer
    features are normalised by learned numbers that start from data (ActNorm) and mixed. Layers start near the identity.

    Its density is one pass of each network. Sampling walks through the features of each layer, and solves for each by
    some 40 evaluations of τ; a compiled graph has them all, so that compiling is for the density.

    Args:
        shape: Shape of an event, (D,) or (C, H, W); an image is seen as a vector.
        kind: Whether τ is a deep sigmoidal flow (DSF), or a deep dense one (DDSF).
        layers: Autoregressive layers.
        signals: Sigmoids in a layer of τ, whose parameters are 3·signals a feature (dsf), or 5·signals + 2·signals².
        hidden: Units in a hidden layer of a masked network.
        depth: Hidden layers of a masked network, or its residual blocks of two layers.
        net: Masked network: plain, or with residual blocks.
        activation: Of the hidden units.
        mixing: What comes between layers: the reversed order, another order, an LU-factorised matrix that starts as a
            permutation, or a rotation.
        dropout: Share of hidden units dropped in training.
        context: Features of a context vector that the networks see; 0 for none.
    """
    dims, mix = numbers_of("naf", shape), mixing_of(mixing)
    at_least("naf", 1, layers=layers, signals=signals)
    make = KINDS[choose("kind", kind, KINDS)]
    networks = Networks(
        model="naf",
        net=net,
        hidden=hidden,
        depth=depth,
        activation=activation,
        dropout=dropout,
        context=context,
    )

    def layer() -> Bijection:
        transform = make(signals)
        conditioner = networks.masked(dims, transform.parameters_per_feature)
        return Chain(Autoregressive(transform, conditioner), Learned(Affine(), (dims,)))

    return stacked(shape, layer, layers, mix, context)

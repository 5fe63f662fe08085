"""MAF: masked autoregressive flow for density estimation (Papamakarios, Pavlakou & Murray, NeurIPS 2017)."""

from typing import Any, Literal

from torch import nn

from longflow.bijections import Affine, Autoregressive, Bijection, Chain, Learned, SoftClip
from longflow.distributions import Flow
from longflow.errors import choose
from longflow.models.checks import at_least
from longflow.models.tables import Activation, Mixing, Net, Networks, mixing_of, numbers_of, stacked

SCALES = {"clipped": SoftClip, "exp": nn.Identity}

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"layers": 10, "hidden": 100, "depth": 1, "scale": "exp"},
    "residual": {"layers": 10, "hidden": 256, "depth": 2, "net": "resmade", "mixing": "lu"},
}


def maf(
    shape: tuple[int, ...],
    *,
    layers: int = 5,
    hidden: int = 100,
    depth: int = 2,
    net: Net = "made",
    activation: Activation = "relu",
    scale: Literal["clipped", "exp"] = "clipped",
    mixing: Mixing = "reverse",
    dropout: float = 0.0,
    context: int = 0,
) -> Flow:
    """Layers z_d = x_d exp(s_d) + t_d whose s and t a masked network makes of the features before d.

    After each layer features are normalised by learned numbers that start from data (ActNorm, where the paper
    normalises batches) and mixed: reversed, as in the paper. Its density is one pass of each network; sampling is a
    walk through the features of each layer. The paper's layer is written z = (x - μ) exp(-α), which is the same family.

    The preset "paper" is of its settings for POWER and GAS (100 units; its larger tables have 512); "residual" is the
    baseline of Neural Spline Flows, of residual masked networks with LU layers between them.

    Args:
        shape: Shape of an event, (D,) or (C, H, W); an image is seen as a vector.
        layers: Autoregressive layers.
        hidden: Units in a hidden layer of a masked network.
        depth: Hidden layers of a masked network, or its residual blocks of two layers.
        net: Masked network: plain, or with residual blocks.
        activation: Of the hidden units.
        scale: Log-scale: clipped softly to a factor of 1000 either way, or (the paper's) as the network says.
        mixing: What comes between layers: the reversed order, another order, an LU-factorised matrix that starts as a
            permutation, or a rotation.
        dropout: Share of hidden units dropped in training.
        context: Features of a context vector that the networks see; 0 for none.
    """
    dims = numbers_of("maf", shape)
    at_least("maf", 1, layers=layers)
    bound, mix = SCALES[choose("scale", scale, SCALES)], mixing_of(mixing)
    networks = Networks(
        model="maf",
        net=net,
        hidden=hidden,
        depth=depth,
        activation=activation,
        dropout=dropout,
        context=context,
    )

    def layer() -> Bijection:
        transform = Affine(bound())
        conditioner = networks.masked(dims, transform.parameters_per_feature)
        return Chain(Autoregressive(transform, conditioner), Learned(Affine(), (dims,)))

    return stacked(shape, layer, layers, mix, context)

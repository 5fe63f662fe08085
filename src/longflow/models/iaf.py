"""IAF: inverse autoregressive flow (Kingma, Salimans, Jozefowicz, Chen, Sutskever & Welling, NeurIPS 2016)."""

from typing import Any

from torch import nn

from longflow.bijections import Affine, Autoregressive, Bijection, Chain, Inverse, Learned, SigmoidPlusTwo, SoftClip
from longflow.distributions import Flow
from longflow.models.checks import at_least
from longflow.models.tables import Activation, Mixing, Net, Networks, mixing_of, numbers_of, stacked

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"layers": 4, "hidden": 1920, "depth": 2, "activation": "elu"},
}


def iaf(
    shape: tuple[int, ...],
    *,
    layers: int = 5,
    hidden: int = 100,
    depth: int = 2,
    net: Net = "made",
    activation: Activation = "elu",
    mixing: Mixing = "reverse",
    dropout: float = 0.0,
    context: int = 0,
) -> Flow:
    """Layers x_d = σ_d z_d + m_d whose σ and m a masked network makes of the latent's numbers before d.

    The inverse of `maf`: a sample and its density are one pass of each network, the density of given data is a walk
    through the features. So it is a posterior or a guide in variational inference rather than a model of data. σ is a
    sigmoid, 0.88 at the start (eq. 13 and 14, whose m is multiplied by 1 - σ: the same family), kept above 0.001, by
    which its inverse is finite far from the data. Features are
    normalised, nearest to the data first, by learned numbers that start from it, and mixed between layers.

    Args:
        shape: Shape of an event, (D,) or (C, H, W); an image is seen as a vector.
        layers: Autoregressive layers.
        hidden: Units in a hidden layer of a masked network.
        depth: Hidden layers of a masked network, or its residual blocks of two layers.
        net: Masked network: plain, or with residual blocks.
        activation: Of the hidden units.
        mixing: What comes between layers: the reversed order, another order, an LU-factorised matrix that starts as a
            permutation, or a rotation.
        dropout: Share of hidden units dropped in training.
        context: Features of a context vector that the networks see; 0 for none.
    """
    dims = numbers_of("iaf", shape)
    at_least("iaf", 1, layers=layers)
    mix = mixing_of(mixing)
    networks = Networks(
        model="iaf",
        net=net,
        hidden=hidden,
        depth=depth,
        activation=activation,
        dropout=dropout,
        context=context,
    )

    def layer() -> Bijection:
        transform = Affine(nn.Sequential(SigmoidPlusTwo(), SoftClip()))
        conditioner = networks.masked(dims, transform.parameters_per_feature)
        return Chain(Learned(Affine(), (dims,)), Inverse(Autoregressive(transform, conditioner)))

    return stacked(shape, layer, layers, mix, context)

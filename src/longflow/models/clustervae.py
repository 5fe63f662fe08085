"""One-step clustering by a variational autoencoder (Su Jianlin's fourth essay on VAEs, 2018)."""

from math import prod
from typing import Any, Literal

from torch import nn

from longflow.distributions import ClusterNormal, EqualNormal, Given
from longflow.errors import UsageError
from longflow.families import ClusterVAE
from longflow.models.autoencoder import Coders, check, posterior_of
from longflow.models.checks import at_least
from longflow.nets.autoencoder import Dense, start_by_glorot

WEIGHT_OF_AN_EVENT = 2.5 * 784
"""λ · D of the essay: its λ of 2.5 is for pictures of 28×28."""

PRESETS: dict[str, dict[str, Any]] = {
    "essay": {"network": "conv-pairs", "width": 32, "latent": 20, "weight": 2.5, "squash": True},
    "mnist": {"width": 512, "depth": 2, "taper": True, "latent": 20, "weight": 2.5, "squash": True},
    "digits": {"width": 256, "depth": 2, "taper": True, "latent": 8, "weight": 100.0, "squash": True},
}


def clustervae(
    shape: tuple[int, ...],
    *,
    clusters: int = 10,
    latent: int = 20,
    network: Literal["dense", "conv", "conv-pairs"] = "dense",
    width: int = 256,
    depth: int = 2,
    taper: bool = False,
    units: int = 256,
    weight: float | None = None,
    squash: bool = False,
) -> ClusterVAE:
    """A VAE whose prior has K clusters with a mean each, and which says the cluster of a code: q(y | z) and q(z | x).

        loss = λ/2 ‖x - x̂(z)‖² + Σ_y q(y | z) log (q(z | x) / N(z; μ_y, I)) + KL(q(y | z) ‖ 1/K)

    The essay's weight λ is that of a likelihood N(x̂, σ² I) with σ² = 1/λ, by which this is a bound on log p(x), all
    constants included: λ = 2.5 is σ = 0.63 of a range [0, 1], and 100 is 0.1. It decides what is found. Too low, events
    of several clusters get one code; for events of D numbers λ · D counts, some 2,000 for MNIST, 6,000 for 8×8 digits.
    In the first epochs events are in all clusters alike, with a KL(q(y | z) ‖ 1/K) of 0. Labels are never seen. Weights
    start as the essay's do (`start_by_glorot`): smaller ones form clusters later, or codes collapse.

    Args:
        shape: Shape of an event, (D,) or (C, H, W), of at least two numbers.
        clusters: Clusters K.
        latent: Numbers of a code.
        network: Fully connected; convolutional as in vae; or conv-pairs, the essay's (two convolutions at each size).
        width: Units of a hidden layer, or maps of the first convolution.
        depth: Hidden layers of fully connected networks.
        taper: Each hidden layer of the encoder half as wide as the one before, and the decoder its mirror.
        units: Hidden units of q(y | z).
        weight: λ, in the units of the preprocessed data; by default 1,960/D, which is the essay's for D = 784.
        squash: Reconstructions through a sigmoid, for data preprocessed to [0, 1] (unit); other data expect none.
    """
    check("clustervae", shape, latent=latent, width=width, depth=depth, units=units)
    at_least("clustervae", 2, clusters=clusters)
    weight = WEIGHT_OF_AN_EVENT / prod(shape) if weight is None else weight
    if not 0 < weight < float("inf"):
        raise UsageError(f"clustervae expects a weight > 0; {weight} came")
    coders = Coders(shape=shape, network=network, width=width, depth=depth, taper=taper)
    p_x = EqualNormal(shape, weight**-0.5)
    decoder = coders.decoder(latent, p_x.context_shape)
    model = ClusterVAE(
        ClusterNormal((latent,), clusters),
        posterior_of("normal", coders, latent, p_x, components=1),
        Given(nn.Sequential(decoder, nn.Sigmoid()) if squash else decoder, p_x, (latent,)),
        Dense((latent,), (clusters,), widths=(units,)),
    )
    start_by_glorot(model)
    return model

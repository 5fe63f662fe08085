"""Deep InfoMax (Hjelm et al., ICLR 2019) with a prior of the codes, as in Su Jianlin's essay."""

from math import prod
from typing import Any

from torch import nn

from longflow.errors import UsageError
from longflow.families import InfoMax
from longflow.families.infomax import Features
from longflow.models.autoencoder import check
from longflow.models.checks import at_least
from longflow.nets.autoencoder import Dense
from longflow.nets.features import STAGES, Maps, Summary, scores

PRESETS: dict[str, dict[str, Any]] = {
    "essay": {"latent": 256, "width": 64, "units": 256, "halvings": 3, "features": "learned"},
    "mnist": {"latent": 32, "width": 16, "units": 256, "halvings": 3},
    "digits": {"latent": 16, "width": 16, "units": 128},
}


def infomax(
    shape: tuple[int, ...],
    *,
    latent: int = 64,
    width: int = 32,
    units: int = 256,
    halvings: int = 2,
    depth: int = 2,
    features: Features = "fixed",
) -> InfoMax:
    """Codes, without labels and without a decoder, by which a discriminator can tell their own x from another.

    One discriminator sees all features of x and the code, another the features at one position and the code; of vectors
    there is the first only, of x itself. It has no density. By default it departs from the paper in one thing:
    discriminators do not teach the features that they see (`features`).

    Args:
        shape: Shape of an event, (D,) or (C, H, W), of at least two numbers.
        latent: Numbers of a code.
        width: Maps of the first of three convolutions (the last has 4·width); for vectors, 4·width units a layer.
        units: Units of a discriminator's layers.
        halvings: Of the sides, at most 3, as far as 3 positions a side remain: the more, the more of x each sees, and
            the less is local.
        depth: Hidden layers of the encoder of vectors.
        features: Whether the features of pictures that discriminators see are fixed to them, or learned by them, too
            (as published; fewer classes could be read from such codes).
    """
    check("infomax", shape, latent=latent, width=width, units=units, depth=depth)
    at_least("infomax", 0, halvings=halvings)
    if halvings > STAGES:
        raise UsageError(f"infomax expects at most {STAGES} halvings; {halvings} came")
    if len(shape) == 1:
        dense = Dense(shape, (2 * latent,), widths=[4 * width] * depth)
        whole = scores(shape[0] + latent, units)
        return InfoMax(shape, latent, trunk=nn.Identity(), head=dense, whole=whole, place=None, features=features)
    maps = Maps(shape, width=width, halvings=halvings)
    whole = scores(maps.features * prod(maps.space) + latent, units)
    place = scores(maps.features + latent, units)
    head = Summary(maps.features, 2 * latent)
    return InfoMax(shape, latent, trunk=maps, head=head, whole=whole, place=place, features=features)

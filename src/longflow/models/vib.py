"""The variational information bottleneck (Alemi, Fischer, Dillon & Murphy, ICLR 2017)."""

from typing import Any, Literal

from longflow.families import VIB
from longflow.models.autoencoder import Coders, check

PRESETS: dict[str, dict[str, Any]] = {
    "mnist": {"latent": 256, "width": 1024, "depth": 2},
    "small": {"latent": 64, "width": 256, "depth": 2},
    "digits": {"latent": 16, "width": 128, "depth": 1},
}


def vib(
    shape: tuple[int, ...],
    *,
    classes: int = 10,
    latent: int = 64,
    width: int = 256,
    depth: int = 2,
    network: Literal["dense", "conv"] = "dense",
) -> VIB:
    """Classes from a noisy code that is charged for what it says of the data.

    It has no density. Data of levels are taken as the numbers that they are, scaled by --preprocess.

    Args:
        shape: Shape of an event, (D,) or (C, H, W), of at least two numbers.
        classes: Classes that are told apart.
        latent: Numbers of a code.
        width: Units of a hidden layer, or maps of the first convolution.
        depth: Hidden layers of a fully connected network.
        network: Fully connected, or convolutional (two halvings, then a layer of 8·width units).
    """
    check("vib", shape, classes=classes, latent=latent, width=width, depth=depth)
    coders = Coders(shape=shape, network=network, width=width, depth=depth)
    return VIB(shape, coders.encoder(2 * latent), latent, classes)

"""The conditional variational autoencoder of Su Jianlin's first essay on VAEs: each class has a mean of its own."""

from typing import Any, Literal

import torch

from longflow.distributions import ClassNormal, Given
from longflow.errors import UsageError
from longflow.families import VAE
from longflow.models.autoencoder import Coders, Observed, check, observed, posterior_of

PRESETS: dict[str, dict[str, Any]] = {
    "essay": {"latent": 2, "width": 256, "depth": 1, "likelihood": "grey"},
    "digits": {"latent": 8, "width": 256, "depth": 2},
}


def cvae(
    shape: tuple[int, ...],
    levels: int | None = None,
    *,
    classes: int = 10,
    latent: int = 20,
    network: Literal["dense", "conv"] = "dense",
    width: int = 256,
    depth: int = 1,
    likelihood: Observed = "normal",
    scale: float = 0.1,
    floor: float = 1e-3,
    components: int = 10,
) -> VAE:
    """A VAE whose prior has a learned mean and deviation for each class: KL(q(z | x) ‖ N(μ_y, σ_y²)).

    Encoder and decoder see no class. The essay learns the means alone; here deviations are learned too. Without a
    label the prior is the mixture of the classes, by which the model is scored.

    Args:
        shape: Shape of an event, (D,) or (C, H, W), of at least two numbers.
        levels: Levels of the data; None for continuous ones.
        classes: Classes of the labels.
        latent: Numbers of a code.
        network: Fully connected, or convolutional (two halvings, then a layer of 8·width units).
        width: Units of a hidden layer, or maps of the first convolution.
        depth: Hidden layers of fully connected networks.
        likelihood: As in vae.
        scale: σ of the normal likelihood at the start, in the units of the preprocessed data.
        floor: Least σ of the normal likelihoods.
        components: Components of a mixture of logistics.
    """
    check("cvae", shape, latent=latent, width=width, depth=depth, components=components)
    if not isinstance(classes, int) or classes < 2:
        raise UsageError(f"cvae expects at least 2 classes; {classes} came")
    coders = Coders(shape=shape, network=network, width=width, depth=depth)
    p_x = observed("cvae", likelihood, shape, levels, scale=scale, floor=floor, components=components)
    q = posterior_of("normal", coders, latent, p_x, components)
    p_z = ClassNormal((latent,), torch.arange(latent)[:, None], classes)
    return VAE(p_z, q, Given(coders.decoder(latent, p_x.context_shape), p_x, (latent,)))

"""The variational autoencoder (Kingma & Welling, ICLR 2014; Rezende, Mohamed & Wierstra, ICML 2014)."""

from typing import Any, Literal

from longflow.families import VAE
from longflow.models.autoencoder import Coders, Observed, check, likelihood_of, observed, posterior_of, prior_of

PRESETS: dict[str, dict[str, Any]] = {
    "essay": {"latent": 2, "width": 256, "depth": 1, "likelihood": "grey"},
    "essay-conv": {"latent": 2, "network": "conv", "width": 32, "likelihood": "grey"},
    "digits": {"latent": 8, "width": 256, "depth": 2},
}


def vae(
    shape: tuple[int, ...],
    levels: int | None = None,
    *,
    latent: int = 20,
    network: Literal["dense", "conv"] = "dense",
    decoder: Literal["independent", "gru"] = "independent",
    width: int = 256,
    depth: int = 1,
    likelihood: Observed = "normal",
    scale: float = 0.1,
    floor: float = 1e-3,
    posterior: Literal["normal", "flow", "mixture"] = "normal",
    prior: Literal["normal", "mixture", "flow", "vamp"] = "normal",
    components: int = 10,
) -> VAE:
    """A code drawn near what an encoder says, and data near what a decoder makes of it.

    Of data with levels, the normal likelihoods are densities of the dequantised data (of [0, 1), as preprocessed), the
    others are distributions of the levels themselves. `grey`, the cross-entropy of grey values, is what much code
    minimises on grey pictures: it is no likelihood, and no bits per dim are told of it. Standard deviations have a
    floor, for else the density of continuous data grows without bound.

    Args:
        shape: Shape of an event, (D,) or (C, H, W), of at least two numbers.
        levels: Levels of the data; None for continuous ones.
        latent: Numbers of a code.
        network: Fully connected, or convolutional (two halvings, then a layer of 8·width units).
        decoder: Numbers of an event independent given the code, or gru: each given those before it, too (levels only).
        width: Units of a hidden layer, or maps of the first convolution.
        depth: Hidden layers of fully connected networks.
        likelihood: normal (one σ for all pixels), normal-varying (the decoder says each σ), bernoulli (2 levels), grey,
            categorical, or logistic (a discretised mixture).
        scale: σ of the normal likelihood at the start, in the units of the preprocessed data.
        floor: Least σ of the normal likelihoods.
        posterior: normal, flow (couplings that see the encoder's features), or mixture.
        prior: normal, mixture (of normals, learned), flow, or vamp (mixture of posteriors of pseudo-inputs).
        components: Components of a mixture: of a posterior, of a prior, or of logistics.
    """
    check("vae", shape, latent=latent, width=width, depth=depth, components=components)
    coders = Coders(shape=shape, network=network, width=width, depth=depth)
    p_x = observed("vae", likelihood, shape, levels, scale=scale, floor=floor, components=components)
    q = posterior_of(posterior, coders, latent, p_x, components)
    p_z = prior_of(prior, latent, q, components=components, width=width, levels=p_x.levels)
    return VAE(p_z, q, likelihood_of(decoder, "vae", likelihood, coders, latent, p_x))

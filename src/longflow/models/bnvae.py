"""VAEs with batch normalisation of their codes (Zhu et al., ACL 2020; Su Jianlin's fifth essay on VAEs)."""

from typing import Any, Literal

from torch import nn

from longflow.distributions import Given, Normal, StandardNormal
from longflow.errors import choose
from longflow.families import VAE
from longflow.models.autoencoder import Coders, Observed, check, likelihood_of, observed, scaled
from longflow.nets.code_norm import MeanNorm, MomentNorm

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"normalised": "mean", "gamma": 0.7},
    "essay": {"normalised": "both", "tau": 0.5},
}


def bnvae(
    shape: tuple[int, ...],
    levels: int | None = None,
    *,
    normalised: Literal["mean", "both"] = "mean",
    gamma: float = 0.7,
    tau: float = 0.5,
    latent: int = 20,
    network: Literal["dense", "conv"] = "dense",
    decoder: Literal["independent", "gru"] = "independent",
    width: int = 256,
    depth: int = 1,
    likelihood: Observed = "normal",
    scale: float = 0.1,
    floor: float = 1e-3,
    components: int = 10,
) -> VAE:
    """A VAE with batch normalisation of what the encoder says, so that a strong decoder cannot do without its codes.

    mean, the paper's: μ has mean β, learned, and deviation γ, fixed, over a batch, so that KL is at least
    (γ² + β²)/2 a number. both, the essay's: μ and σ have moments such that codes of all events together have mean 0 and
    variance 1, as the prior has, and KL is at least τ/2 a number; its cost is higher, as σ passes 0.

    Statistics are those of the batch in training, else those settled on, taken from training rows with the weights of
    now. With γ > 1 codes leave the prior, and samples suffer.

    Args:
        shape: Shape of an event, (D,) or (C, H, W), of at least two numbers.
        levels: Levels of the data; None for continuous ones.
        normalised: mean (of q(z | x), alone), or both (mean and deviation).
        gamma: Deviation of the means, for "mean".
        tau: Least share of the variance of codes that is that of their means, for "both".
        latent: Numbers of a code.
        network: Fully connected, or convolutional (two halvings, then a layer of 8·width units).
        decoder: Numbers of an event independent given the code, or gru: each given those before it, too (levels only).
        width: Units of a hidden layer, or maps of the first convolution.
        depth: Hidden layers of fully connected networks.
        likelihood: As in vae.
        scale: σ of the normal likelihood at the start, in the units of the preprocessed data.
        floor: Least σ of the normal likelihoods.
        components: Components of a mixture of logistics.
    """
    check("bnvae", shape, latent=latent, width=width, depth=depth, components=components)
    choose("normalised", normalised, ("mean", "both"))
    coders = Coders(shape=shape, network=network, width=width, depth=depth)
    p_x = observed("bnvae", likelihood, shape, levels, scale=scale, floor=floor, components=components)
    norm = MeanNorm(latent, gamma) if normalised == "mean" else MomentNorm(latent, tau)
    encoder = nn.Sequential(scaled(coders.encoder(2 * latent), p_x), norm)
    p_x_given_z = likelihood_of(decoder, "bnvae", likelihood, coders, latent, p_x)
    return VAE(StandardNormal((latent,)), Given(encoder, Normal((latent,)), shape), p_x_given_z)

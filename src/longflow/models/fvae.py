"""f-VAE, a flow between an encoder and a decoder (Su & Wu 2018, arXiv 1809.05861; Su Jianlin's essay on f-VAEs)."""

from typing import Any

from longflow.distributions import EqualNormal, Given
from longflow.families import VAE
from longflow.models.autoencoder import check
from longflow.models.checks import at_least, scales_of
from longflow.models.glow import glow
from longflow.nets.autoencoder import ResidualDecoder, ResidualEncoder

MOST_HALVINGS = 3

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "halvings": 3,
        "layers": 12,
        "scales": 4,
        "depth": 12,
        "width": 256,
        "encoder_scale": 1.0,
        "decoder_scale": 1.0,
    },
    "digits": {"halvings": 1, "layers": 2, "maps": 64, "scales": 2, "depth": 4, "width": 64},
}


def fvae(
    shape: tuple[int, ...],
    *,
    halvings: int | None = None,
    layers: int = 4,
    maps: int | None = None,
    scales: int | None = None,
    depth: int = 4,
    width: int = 128,
    encoder_scale: float = 0.1,
    decoder_scale: float = 0.2,
    floor: float = 1e-3,
) -> VAE:
    """A VAE whose posterior is a flow: z = F(σ1 u + E(x)), u ~ N(0, I), and x ~ N(G(F⁻¹(z)), σ2²).

        L = ‖G(h) - x‖²/(2σ2²) + D log σ2 + D/2 log 2π + ½‖F(h)‖² - ½‖u‖² - log|det ∂F/∂h| - D log σ1,  h = σ1 u + E(x)

    (The paper's formula lacks D log σ2, its code has it.) Seen from h it is a VAE with a normal posterior and a flow
    as its prior, which is how it is built; its code has as many numbers as its data. E is stages of residual steps
    between squeezes, G its mirror, F is Glow with additive couplings and shuffles. σ1 and σ2 are learned numbers above
    a floor: of dequantised levels the bound is finite anyway, of continuous data it is so by the floor alone.

    The paper starts both at 1, of data in [-1, 1]; of data in [0, 1) codes would then drown in noise, and with few
    steps collapse. The preset "paper" is that of 128×128 faces: there the maps within a residual step are those of its
    stage. The paper's last layer is tanh; this one is linear. For vectors all is fully connected.

    Args:
        shape: Shape of an event, (D,) or (C, H, W), of at least two numbers.
        halvings: Stages of E and of G, each after (before) a squeeze; sides must divide by 2^halvings.
        layers: Residual steps of a stage.
        maps: Maps (or units) within a residual step of the first stage, twice as many in each further one; by default
            as many as the stage has channels.
        scales: Scales of F, on the code; by default as many as it allows, at most 3.
        depth: Steps of F in each scale.
        width: Maps (or units) of F's conditioners.
        encoder_scale: σ1 at the start.
        decoder_scale: σ2 at the start, in the units of the preprocessed data.
        floor: Least σ1 and σ2.
    """
    check("fvae", shape, layers=layers, depth=depth, width=width)
    at_least("fvae", 1, maps=maps, halvings=halvings, scales=scales)
    picture = len(shape) == 3
    stages = scales_of("fvae", shape, halvings, MOST_HALVINGS) if picture else 1
    inner = (shape[0] * 4 ** (stages - 1), *(side // 2 ** (stages - 1) for side in shape[1:])) if picture else shape
    prior = glow(inner, scales=scales, depth=depth, width=width, coupling="additive", mixing="shuffle")
    encoder = ResidualEncoder(shape, halvings=stages, steps=layers, width=maps)
    decoder = ResidualDecoder(shape, halvings=stages, steps=layers, width=maps)
    posterior = Given(encoder, EqualNormal(inner, encoder_scale, floor=floor), shape)
    return VAE(prior, posterior, Given(decoder, EqualNormal(shape, decoder_scale, floor=floor), inner))

"""What the builders of autoencoders share: networks, likelihoods, posteriors and priors by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from torch import Tensor, nn

from longflow.bijections import Affine, Chain, Coupling, Learned, Reverse
from longflow.distributions import (
    Bernoulli,
    Categorical,
    EqualNormal,
    Flow,
    GaussianMixture,
    Given,
    GreyBernoulli,
    LogisticMixture,
    Noise,
    Normal,
    NormalMixture,
    Recurrent,
    StandardNormal,
)
from longflow.distributions.distribution import Distribution
from longflow.distributions.parametric import Parametric
from longflow.errors import UsageError, choose
from longflow.families import VampPrior
from longflow.models.checks import at_least
from longflow.nets import MLP
from longflow.nets.autoencoder import ConvDecoder, ConvEncoder, Dense

Observed = Literal["normal", "normal-varying", "bernoulli", "grey", "categorical", "logistic"]
OF_LEVELS = ("bernoulli", "grey", "categorical", "logistic")
NETWORKS = ("dense", "conv", "conv-pairs")
DECODERS = ("independent", "gru")
POSTERIORS = ("normal", "flow", "mixture")
PRIORS = ("normal", "mixture", "flow", "vamp")
HALVINGS = 2
STEPS_OF_A_FLOW = 4


def of_levels(options: Mapping[str, Any]) -> bool:
    """Return whether a model of these options is one of levels, which takes them undequantised and unscaled."""
    return options.get("likelihood") in OF_LEVELS


def observed(
    model: str, kind: str, shape: tuple[int, ...], levels: int | None, *, scale: float, floor: float, components: int
) -> Parametric:
    """Return the distribution of data given a code, by name.

    Raises UsageError where it does not fit the data's levels (None for continuous data in [0, 1]).
    """
    choose("likelihood", kind, ("normal", "normal-varying", *OF_LEVELS))
    if kind == "bernoulli" and levels not in (None, 2):
        raise UsageError(
            f"{model} expects 2 levels for a bernoulli likelihood; {levels} came (a binary data set, --levels 2, or"
            " --likelihood grey, the cross-entropy of grey values, which is no likelihood)"
        )
    if kind in ("categorical", "logistic") and levels is None:
        raise UsageError(f"{model} expects data with levels for a {kind} likelihood; continuous data came")
    known = levels or 2
    makers: dict[str, Callable[[], Parametric]] = {
        "normal": lambda: EqualNormal(shape, scale, floor=floor),
        "normal-varying": lambda: Normal(shape, floor=floor),
        "bernoulli": lambda: Bernoulli(shape),
        "grey": lambda: GreyBernoulli(shape, known),
        "categorical": lambda: Categorical(shape, known),
        "logistic": lambda: LogisticMixture(shape, known, components),
    }
    return makers[kind]()


@dataclass(frozen=True, kw_only=True)
class Coders:
    """How encoders and decoders are made; the builders' docstrings say what the numbers mean."""

    shape: tuple[int, ...]
    network: str
    width: int
    depth: int
    taper: bool = False

    def __post_init__(self) -> None:
        choose("network", self.network, NETWORKS)
        if self.convolves and (len(self.shape) != 3 or min(self.shape[1:]) < 2**HALVINGS):
            raise UsageError(f"convolutions expect pictures of sides of at least {2**HALVINGS}; {self.shape} came")

    @property
    def convolves(self) -> bool:
        """Whether the networks are convolutional."""
        return self.network != "dense"

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of each layer of fully connected encoders; with `taper`, half of those of the layer before."""
        return tuple(max(1, self.width >> k) if self.taper else self.width for k in range(self.depth))

    @property
    def sizes(self) -> dict[str, int]:
        """How large the layers of convolutional networks are."""
        pairs = self.network == "conv-pairs"
        units, steps = (0, 2) if pairs else (8 * self.width, 1)
        return {"width": self.width, "halvings": HALVINGS, "units": units, "steps": steps}

    def encoder(self, features: int) -> nn.Module:
        """Return a network from data to (B, features)."""
        if self.convolves:
            return ConvEncoder(self.shape, features, **self.sizes)
        return Dense(self.shape, (features,), widths=self.widths)

    def decoder(self, features: int, shape: tuple[int, ...]) -> nn.Module:
        """Return a network from (B, features) to the parameters (B, *shape) of a distribution of data."""
        if self.convolves:
            return ConvDecoder(features, shape, **self.sizes)
        return Dense((features,), shape, widths=self.widths[::-1])


class Scaled(nn.Module):
    """A network that sees levels 0..L-1 in [0, 1]: about ½, the common background of digits slowed training down."""

    def __init__(self, network: nn.Module, levels: int) -> None:
        super().__init__()
        self.network, self.top = network, levels - 1

    def forward(self, x: Tensor) -> Tensor:
        """Return what the network makes of the scaled x."""
        return self.network(x / self.top)


def posterior_of(kind: str, coders: Coders, latent: int, observation: Parametric, components: int) -> Given:
    """Return q(z | x) of a kind: normal, a flow whose couplings see the encoder's features, or a mixture of normals."""
    choose("posterior", kind, POSTERIORS)
    makers: dict[str, Callable[[], tuple[int, Distribution]]] = {
        "normal": lambda: (2 * latent, Normal((latent,))),
        "mixture": lambda: (3 * components * latent, NormalMixture((latent,), components)),
        "flow": lambda: (coders.width, _flow(latent, coders.width, coders.width)),
    }
    features, distribution = makers[kind]()
    return Given(scaled(coders.encoder(features), observation), distribution, coders.shape)


def scaled(encoder: nn.Module, observation: Parametric) -> nn.Module:
    """Return an encoder of what is observed: of levels, as it should see them."""
    return encoder if observation.levels is None else Scaled(encoder, observation.levels)


def likelihood_of(decoder: str, model: str, kind: str, coders: Coders, latent: int, p_x: Parametric) -> Given:
    """Return p(x | z) of a decoder: numbers independent given z, as p_x has them, or one read after the other."""
    choose("decoder", decoder, DECODERS)
    if decoder == "independent":
        return Given(coders.decoder(latent, p_x.context_shape), p_x, (latent,))
    if kind not in ("bernoulli", "categorical"):
        raise UsageError(f"{model} expects a bernoulli or categorical likelihood with the decoder gru; {kind} came")
    return Given(nn.Identity(), Recurrent(p_x.shape, p_x.levels or 2, context=latent, width=coders.width), (latent,))


def prior_of(
    kind: str,
    latent: int,
    posterior: Given,
    *,
    components: int,
    width: int,
    levels: int | None = None,
) -> Noise | Flow:
    """Return p(z) of a kind: standard normal, mixture, flow or VampPrior.

    `levels` are those that the posterior sees, None for values of the order of 1.
    """
    choose("prior", kind, PRIORS)
    makers: dict[str, Callable[[], Noise | Flow]] = {
        "normal": lambda: StandardNormal((latent,)),
        "mixture": lambda: GaussianMixture((latent,), components),
        "flow": lambda: _flow(latent, width),
        "vamp": lambda: VampPrior(posterior, components, scale=(levels or 2) - 1.0),
    }
    return makers[kind]()


def _flow(features: int, width: int, context: int = 0) -> Flow:
    """Return affine couplings of vectors: the conditioned posterior, or the prior."""
    if features < 2:
        raise UsageError(f"a flow of latents expects at least 2 of them; {features} came")
    steps = [
        part
        for _ in range(STEPS_OF_A_FLOW)
        for part in (
            Coupling(
                Affine(), MLP(features // 2, 2 * (features - features // 2), hidden=width, depth=1, context=context)
            ),
            Reverse(),
        )
    ]
    if context:
        return Flow(Chain(*steps), StandardNormal((features,)), (context,))
    return Flow(Chain(Learned(Affine(), (features,)), *steps), StandardNormal((features,)))


def check(model: str, shape: tuple[int, ...], **counts: int) -> None:
    """Raise UsageError unless events are vectors or pictures of at least two numbers, and each count at least 1."""
    if len(shape) not in (1, 3) or prod(shape) < 2:
        raise UsageError(f"{model} expects events of shape (D,), D >= 2, or (C, H, W); {shape} came")
    at_least(model, 1, **counts)

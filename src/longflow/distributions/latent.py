"""The contract of a distribution with a latent: what the commands ask of a model."""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from longflow.bijections import Bijection
from longflow.distributions.distribution import Distribution, Noise
from longflow.errors import UsageError

Inside = tuple["LatentModel", Tensor, Tensor | None]
"""A flow inside a model, and the events and contexts that it sees."""


class LatentModel(Distribution):
    """A distribution of data x that has a latent z, noise of the distribution `base`: a flow, an autoencoder.

    - `encode` maps data to latents (of `latent_shape`) and `decode` maps latents to data; where `invertible`, each
      undoes the other.
    - `log_weight` is random where the likelihood is: the logarithm of an unbiased estimate of p(x), so that `bound`
      can average K draws of it.
    """

    density: "LatentModel"
    """The distribution inside that dequantisation wraps; itself where there is none."""

    base: Noise
    predicts: int = 0
    """Classes that `predictions` tells apart; 0 for none."""

    invertible: bool = True

    @property
    def reparametrised(self) -> bool:  # type: ignore[override]
        return self.base.reparametrised

    @property
    def estimates(self) -> bool:
        """Whether `log_prob` has noise that no bound allows for, such as that of estimated log-determinants."""
        return False

    @property
    def random(self) -> bool:
        """Whether `log_prob` in evaluation mode draws noise, so that draws of it can be averaged."""
        return self.likelihood != "exact"

    @abstractmethod
    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data x, (B, *shape), to latent z, (B, *latent_shape)."""

    @abstractmethod
    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Map latent z, (B, *latent_shape), to data x, (B, *shape)."""

    @abstractmethod
    def preprocess(self, first: Bijection) -> None:
        """Put a bijection of the data before all else, in place; the rest goes on seeing what that one returns."""

    def middle(self, x: Tensor) -> Tensor:
        """Return events as the density inside sees them, without noise: the middles of bins, where there are any."""
        return x

    def spread(self, x: Tensor) -> Tensor:
        """Return events as the density inside sees them, with the noise of a dequantiser, where there is one."""
        return x

    def log_weight(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the logarithm of an unbiased estimate of p(x), of shape (B,)."""
        return self.log_prob(x, context)

    def parts(self, x: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return what `log_prob` is made of, in nats by name, each (B,) or (B, groups); {} where it is of one piece."""
        return {}

    def flows(self, x: Tensor, context: Tensor | None = None) -> dict[str, Inside]:
        """Return the flows inside by the part that each is, "" for the whole density; {} where there is none.

        With each come the events, (B, *its shape), and contexts that rows x give it: those of an autoencoder's prior or
        posterior are codes drawn from q(z | x), those of a manifold's chart coordinates.
        """
        return {}

    def predictions(self, z: Tensor) -> dict[str, Tensor]:
        """Return classes of latents z, (B,), by each way that there is: none, for a model that knows no classes."""
        return {}

    def joint(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p(x | class), (B,), and a classifier's logits, (B, K), for a model of classes."""
        raise UsageError("this model knows no classes")

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of p(y | x), (B, K), for a model with a classifier beside the density (`Hybrid`)."""
        raise UsageError("this flow has no classifier beside the density: a weight of 0 leaves nothing to train")

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return self.base.shape

    def scale_map(self) -> Tensor:
        """Return the scale that finishes each number of a latent, whole numbers of `latent_shape`: 0 is the finest."""
        places = torch.arange(self.base.dims)
        found = torch.empty_like(places)
        for k, part in enumerate(self.scales(places.reshape(1, *self.latent_shape))):
            found[part.flatten()] = k
        return found.reshape(self.latent_shape).to(next(self.parameters(), places).device)

    def scales(self, z: Tensor) -> tuple[Tensor, ...]:
        """Return the parts of a latent, (B, *latent_shape), the finest first: see `Bijection.scales`."""
        return (z,)

    @property
    def scale_count(self) -> int:
        """The number of scales of a latent."""
        return int(self.scale_map().max()) + 1


def averaged(model: LatentModel, x: Tensor, context: Tensor | None, samples: int) -> Tensor:
    """Return log (1/K) Σ_k w_k, (B,), from K draws of log w_k: a bound that tightens with K (Burda et al. 2016).

    One draw is `log_prob`, which may have less noise than a weight.
    """
    if samples < 1:
        raise UsageError(f"expected at least 1 importance sample; {samples} came")
    if samples == 1:
        return model.log_prob(x, context)
    draws = torch.stack([model.log_weight(x, context) for _ in range(samples)])
    return torch.logsumexp(draws, 0) - math.log(samples)

"""What all autoencoders share: a bound of two parts, from one draw of the latent."""

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from longflow.bijections import Bijection, Chain
from longflow.distributions import Given, Likelihood, Temperature
from longflow.distributions.distribution import total
from longflow.distributions.latent import LatentModel, averaged
from longflow.distributions.parametric import Parametric


@dataclass(frozen=True)
class Draw:
    """What one draw of a latent says of a batch, in nats."""

    reconstruction: Tensor
    """log p(x | z), with the log-determinant of what comes before, (B,)."""
    divergence: Tensor
    """KL(q(z | x) ‖ p(z)) by groups, (B, groups)."""


class Autoencoder(LatentModel):
    """p(x) = ∫ p(x | z) p(z) dz, bounded below through q(z | x) (Kingma & Welling 2014; Rezende et al. 2014).

        log p(x) ≥ E_q log p(x | z) - KL(q(z | x) ‖ p(z))

    `log_prob` is the bound from one draw of z, `log_weight` the logarithm of p(x | z) p(z) / q(z | x) at one; `bound`
    averages K of those.
    """

    invertible = False
    by_weights: bool = True
    """Whether importance weights have a gradient in every parameter, so that they can be trained."""

    def __init__(self, observation: Given | Parametric) -> None:
        super().__init__()
        self.observation = observation
        self.shape, self.levels = observation.shape, observation.levels
        self.likelihood: Likelihood = "none" if observation.likelihood == "none" else "lower bound"
        self.first = Chain()

    @abstractmethod
    def draw(self, x: Tensor, context: Tensor | None = None) -> Draw:
        """Draw a latent for each row of x, (B, *shape), and return what it says."""

    @abstractmethod
    def condition(self, z: Tensor) -> Tensor:
        """Return what the observation, p(x | z), takes as its context for latents z, (B, *latent_shape)."""

    @property
    def density(self) -> "Autoencoder":  # type: ignore[override]
        return self

    def preprocess(self, first: Bijection) -> None:
        self.first = Chain(first, self.first)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        drawn = self.draw(x, context)
        return drawn.reconstruction - total(drawn.divergence)

    def bound(self, x: Tensor, context: Tensor | None = None, samples: int = 1) -> Tensor:
        return averaged(self, x, context, samples)

    def parts(self, x: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        drawn = self.draw(x, context)
        return {"reconstruction": drawn.reconstruction, "kl": drawn.divergence}

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Map latents to the mean of p(x | z), in data units: of levels it need not be a whole number."""
        self.check_events(z, None, self.latent_shape)
        return self.first.inverse(self.observation.mean(self.condition(z)))[0]

    def at_floor(self, z: Tensor) -> Tensor:
        """Return the share of p(x | z)'s deviations that are at their floor, (B,), for z, (B, *latent_shape)."""
        return self.observation.at_floor(self.condition(z))

    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        """Draw a latent, and then an event from p(x | z), each with its noise times the temperature.

        Where temperatures are those of the latent's numbers, p(x | z) has its own.
        """
        self.check_draw(n, context, temperature)
        condition = self.condition(self.base.sample(n, context, temperature))
        own = 1.0 if isinstance(temperature, Tensor) else temperature
        return self.first.inverse(self.observation.sample(n, condition, own))[0]

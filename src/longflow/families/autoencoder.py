"""What all autoencoders share: a bound of two parts, from one draw of the latent."""

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from longflow.bijections import Bijection, Chain
from longflow.distributions import Likelihood
from longflow.distributions.distribution import Distribution, total
from longflow.distributions.latent import LatentModel, averaged


@dataclass(frozen=True)
class Draw:
    """What one draw of a latent says of a batch, in nats."""

    z: Tensor
    """(B, *latent)."""
    reconstruction: Tensor
    """log p(x | z), with the log-determinant of what comes before, (B,)."""
    divergence: Tensor
    """KL(q(z | x) ‖ p(z)) by groups, (B, groups)."""
    log_ratio: Tensor
    """log q(z | x) - log p(z), (B,): an estimate of the sum of the divergence."""


class Autoencoder(LatentModel):
    """p(x) = ∫ p(x | z) p(z) dz, bounded below through q(z | x) (Kingma & Welling 2014; Rezende et al. 2014).

        log p(x) ≥ E_q log p(x | z) - KL(q(z | x) ‖ p(z))

    `log_prob` is the bound from one draw of z; `bound` averages K importance weights p(x | z) p(z) / q(z | x).
    """

    invertible = False

    def __init__(self, observation: Distribution) -> None:
        super().__init__()
        self.shape, self.levels = observation.shape, observation.levels
        self.likelihood: Likelihood = "none" if observation.likelihood == "none" else "lower bound"
        self.first = Chain()

    @abstractmethod
    def draw(self, x: Tensor, context: Tensor | None = None) -> Draw:
        """Draw a latent for each row of x, (B, *shape), and return what it says."""

    @property
    def density(self) -> "Autoencoder":  # type: ignore[override]
        return self

    def preprocess(self, first: Bijection) -> None:
        self.first = Chain(first, self.first)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        drawn = self.draw(x, context)
        return drawn.reconstruction - total(drawn.divergence)

    def log_weight(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        drawn = self.draw(x, context)
        return drawn.reconstruction - drawn.log_ratio

    def bound(self, x: Tensor, context: Tensor | None = None, samples: int = 1) -> Tensor:
        return averaged(self, x, context, samples)

    def parts(self, x: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        drawn = self.draw(x, context)
        return {"reconstruction": drawn.reconstruction, "kl": drawn.divergence}

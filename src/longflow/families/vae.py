"""A variational autoencoder is three distributions: a prior, a posterior and a likelihood."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from longflow.bijections import Bijection, Chain
from longflow.distributions import (
    Case,
    Flow,
    Given,
    Likelihood,
    Noise,
    Normal,
    StandardNormal,
    Temperature,
)
from longflow.distributions.distribution import total
from longflow.distributions.latent import LatentModel, averaged
from longflow.distributions.parametric import EqualNormal, Parametric
from longflow.errors import UsageError


@dataclass(frozen=True)
class Draw:
    """What one draw of a latent says of a batch, in nats."""

    z: Tensor
    """(B, *latent)."""
    reconstruction: Tensor
    """log p(x | z), with the log-determinant of what comes before, (B,)."""
    divergence: Tensor
    """KL(q(z | x) ‖ p(z)) by groups, (B, groups): each number's own in closed form; else one, from the draw."""
    log_ratio: Tensor
    """log q(z | x) - log p(z), (B,): an estimate of the sum of the divergence."""


class VAE(LatentModel):
    """p(x) = ∫ p(x | z) p(z) dz, bounded below through q(z | x) (Kingma & Welling 2014; Rezende et al. 2014).

        log p(x) ≥ E_q log p(x | z) - KL(q(z | x) ‖ p(z))

    The prior may be any noise, of classes or not, or a `Flow`, whose own latent is then this model's. Posterior and
    likelihood are distributions with a context, x and z (`Given` a network). KL is in closed form for normal posteriors
    and priors, else from the draw. `log_prob` is the bound from one draw of z; `bound` averages K importance weights.

    Of F_x(u) = σ(x)u + μ(x) this is the plain VAE. Of F_x(u) = F(σ u + E(x)) it is f-VAE: there the posterior of
    h = σ u + E(x) is normal, the prior of h is the flow h → F(h), and the decoder sees h = F⁻¹(z).
    """

    def __init__(self, prior: Noise | Flow, posterior: Given, likelihood: Given) -> None:
        super().__init__()
        for name, wanted, came in (
            ("posterior", likelihood.shape, posterior.context_shape),
            ("likelihood", prior.shape, likelihood.context_shape),
            ("prior", prior.shape, posterior.shape),
        ):
            if wanted != came:
                raise UsageError(f"the {name} expects {wanted}; {came} came")
        self.prior, self.posterior, self.observation = prior, posterior, likelihood
        self.shape = likelihood.shape
        self.context_shape = prior.context_shape
        self.first = Chain()
        self.invertible = False
        self.levels = likelihood.levels
        self.likelihood: Likelihood = "none" if likelihood.likelihood == "none" else "lower bound"

    @property
    def density(self) -> "VAE":  # type: ignore[override]
        return self

    @property
    def base(self) -> Noise:  # type: ignore[override]
        """The noise that latents are: the prior, or that of a flow that is the prior."""
        return self.prior.base if isinstance(self.prior, Flow) else self.prior

    @property
    def estimates(self) -> bool:
        return isinstance(self.prior, Flow) and self.prior.estimates

    def preprocess(self, first: Bijection) -> None:
        self.first = Chain(first, self.first)

    def draw(self, x: Tensor, context: Tensor | None = None) -> Draw:
        """Draw a latent for each row of x, (B, *shape), and return what it says."""
        self.check_events(x, None)
        self.check_context(len(x), context)
        y, gain = self.first(x)
        parameters = self.posterior.network(y)
        posterior = self.posterior.distribution
        z, log_q = posterior.sample_and_log_prob(len(x), parameters)
        log_ratio = log_q - self.prior.log_prob(z, context)
        divergence = self.divergence(parameters, z, log_ratio, context)
        return Draw(z, self.observation.log_prob(y, z) + gain, divergence, log_ratio)

    def divergence(self, parameters: Tensor, z: Tensor, log_ratio: Tensor, context: Tensor | None) -> Tensor:
        """Return KL(q(z | x) ‖ p(z)) by groups, (B, groups), or its estimate from z ~ q and log q(z | x) - log p(z)."""
        posterior = self.posterior.distribution
        closed = posterior.divergence(parameters, self.prior, context) if isinstance(posterior, Parametric) else None
        return log_ratio[:, None] if closed is None else closed

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

    def code(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return mean and log-deviation of q(z | x), each (B, *latent), where it is normal; else None."""
        self.check_events(x, None)
        posterior = self.posterior.distribution
        moments = (
            posterior.moments(self.posterior.network(self.first(x)[0])) if isinstance(posterior, Parametric) else None
        )
        return None if moments is None else (moments[0], moments[1].expand_as(moments[0]))

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data to the latent at the centre of its posterior, (B, *latent_shape)."""
        self.check_events(x, None)
        centre = self.posterior.sample(len(x), self.first(x)[0], 0.0)
        return self.prior.encode(centre) if isinstance(self.prior, Flow) else centre

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Map latents to the mean of p(x | z), in data units: of levels it need not be a whole number."""
        return self.first.inverse(self.observation.mean(self._inner(z)))[0]

    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        """Draw a latent, and then an event from p(x | z), each with its noise times the temperature.

        Where temperatures are those of the latent's numbers, p(x | z) has its own.
        """
        self.check_draw(n, context, temperature)
        inner = self._inner(self.base.sample(n, context, temperature))
        own = 1.0 if isinstance(temperature, Tensor) else temperature
        return self.first.inverse(self.observation.sample(n, inner, own))[0]

    def _inner(self, z: Tensor) -> Tensor:
        return self.prior.decode(z) if isinstance(self.prior, Flow) else z

    def check_context(self, rows: int, context: Tensor | None) -> None:
        self.prior.check_context(rows, context)

    def scales(self, z: Tensor) -> tuple[Tensor, ...]:
        return self.prior.scales(z) if isinstance(self.prior, Flow) else (z,)

    @classmethod
    def examples(cls) -> Iterator[Case]:
        torch.manual_seed(0)
        encoder, decoder = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)), nn.Linear(1, 2)
        yield Case(
            cls(StandardNormal((1,)), Given(encoder, Normal((1,)), (2,)), Given(decoder, EqualNormal((2,), 0.7), (1,)))
        )

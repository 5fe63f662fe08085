"""A variational autoencoder is three distributions: a prior, a posterior and a likelihood."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from longflow.distributions import (
    Case,
    Flow,
    Given,
    Noise,
    Normal,
    StandardNormal,
)
from longflow.distributions.latent import Inside
from longflow.distributions.parametric import EqualNormal, Parametric
from longflow.errors import UsageError
from longflow.families.autoencoder import Autoencoder, Draw


class VAE(Autoencoder):
    """An autoencoder of three distributions: the prior of z, the posterior q(z | x) and the likelihood p(x | z).

    The prior may be any noise, of classes or not, or a `Flow`, whose own latent is then this model's. Posterior and
    likelihood are distributions with a context, x and z (`Given` a network). KL is in closed form for each number of a
    normal posterior under a normal prior, else one number from the draw.

    Of F_x(u) = σ(x)u + μ(x) this is the plain VAE. Of F_x(u) = F(σ u + E(x)) it is f-VAE: there the posterior of
    h = σ u + E(x) is normal, the prior of h is the flow h → F(h), and the decoder sees h = F⁻¹(z).
    """

    def __init__(self, prior: Noise | Flow, posterior: Given, likelihood: Given) -> None:
        super().__init__(likelihood)
        for name, wanted, came in (
            ("posterior", likelihood.shape, posterior.context_shape),
            ("likelihood", prior.shape, likelihood.context_shape),
            ("prior", prior.shape, posterior.shape),
        ):
            if wanted != came:
                raise UsageError(f"the {name} expects {wanted}; {came} came")
        self.prior, self.posterior = prior, posterior
        self.context_shape = prior.context_shape
        self.by_weights = posterior.inner.reparametrised

    @property
    def base(self) -> Noise:  # type: ignore[override]
        """The noise that latents are: the prior, or that of a flow that is the prior."""
        return self.prior.base if isinstance(self.prior, Flow) else self.prior

    @property
    def estimates(self) -> bool:
        return isinstance(self.prior, Flow) and self.prior.estimates

    def draw(self, x: Tensor, context: Tensor | None = None) -> Draw:
        """Draw a latent for each row of x, (B, *shape), of a mixture one of each component; return what it says."""
        y, gain, parameters = self._seen(x, context)
        posterior = self.posterior.inner
        z, log_q, share = posterior.stratified(len(x), parameters)
        reconstruction = torch.stack([self.observation.log_prob(y, one) for one in z])
        divergence = self.divergence(parameters, z, log_q, share, context)
        return Draw((share * reconstruction).sum(0) + gain, divergence)

    def _seen(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the networks see of x, its log-determinant, and the posterior's parameters."""
        self.check_events(x, None)
        self.check_context(len(x), context)
        y, gain = self.first(x)
        return y, gain, self.posterior.network(y)

    def divergence(self, parameters: Tensor, z: Tensor, log_q: Tensor, share: Tensor, context: Tensor | None) -> Tensor:
        """Return KL(q(z | x) ‖ p(z)) by groups, (B, groups): in closed form, or from draws and log q (`stratified`)."""
        posterior = self.posterior.inner
        closed = posterior.divergence(parameters, self.prior, context) if isinstance(posterior, Parametric) else None
        if closed is not None:
            return closed
        log_p = torch.stack([self.prior.log_prob(one, context) for one in z])
        return (share * (log_q - log_p)).sum(0)[:, None]

    def log_weight(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        y, gain, parameters = self._seen(x, context)
        z, log_q = self.posterior.inner.sample_and_log_prob(len(x), parameters)
        return self.observation.log_prob(y, z) + gain + self.prior.log_prob(z, context) - log_q

    def code(self, x: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return mean and log-deviation of q(z | x), each (B, *latent), where it is normal; else None."""
        self.check_events(x, None)
        posterior = self.posterior.inner
        moments = (
            posterior.moments(self.posterior.network(self.first(x)[0])) if isinstance(posterior, Parametric) else None
        )
        return None if moments is None else (moments[0], moments[1].expand_as(moments[0]))

    def flows(self, x: Tensor, context: Tensor | None = None) -> dict[str, Inside]:
        parameters = self._seen(x, context)[2]
        posterior = self.posterior.inner
        z = posterior.sample(len(x), parameters)
        found: dict[str, Inside] = {}
        if isinstance(self.prior, Flow):
            found["prior"] = self.prior, z, context
        if isinstance(posterior, Flow):
            found["posterior"] = posterior, z, parameters
        return found

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data to the latent at the centre of its posterior, (B, *latent_shape)."""
        self.check_events(x, None)
        centre = self.posterior.sample(len(x), self.first(x)[0], 0.0)
        return self.prior.encode(centre) if isinstance(self.prior, Flow) else centre

    def condition(self, z: Tensor) -> Tensor:
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

"""A variational autoencoder that clusters its data while it learns to code them."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from longflow.distributions import Case, ClusterNormal, Given, Normal
from longflow.distributions.distribution import total
from longflow.distributions.parametric import EqualNormal, Gaussian
from longflow.errors import UsageError
from longflow.families.vae import VAE


class ClusterVAE(VAE):
    """A VAE with clusters y and codes z as its latents, p(y) = 1/K and p(z | y) = N(μ_y, I) (Su Jianlin 2018).

        log p(x) ≥ E_q [log p(x | z) - Σ_y q(y | z) log (q(z | x) / p(z | y)) - KL(q(y | z) ‖ 1/K)]

    q(y, z | x) = q(y | z) q(z | x), where `assigner` tells the logits (B, K) of q(y | z) from z. As q(y | z) sees z,
    both divergences are taken from the draw. Importance weights are of z alone, under the mixture 1/K Σ_y p(z | y):
    the bound above is less than their mean logarithm by KL(q(y | z) ‖ p(y | z)), nothing where q is Bayes' rule.

    With a context, a cluster for each row, it is the bound on log p(x | y): that of a VAE with the prior N(μ_y, I).
    """

    prior: ClusterNormal

    def __init__(self, prior: ClusterNormal, posterior: Given, likelihood: Given, assigner: nn.Module) -> None:
        super().__init__(prior, posterior, likelihood)
        if not isinstance(posterior.inner, Gaussian):
            raise UsageError(f"clusters expect a normal posterior; {type(posterior.inner).__name__} came")
        self.assigner = assigner
        self.by_weights = False

    def divergence(self, parameters: Tensor, z: Tensor, log_q: Tensor, share: Tensor, context: Tensor | None) -> Tensor:
        """Return the divergence of each number of the code, and last that of the cluster, (B, D + 1)."""
        if context is not None:
            return super().divergence(parameters, z, log_q, share, context)
        (code,) = z
        log_y = self._log_memberships(code)
        y = log_y.exp()
        expected = (y.unsqueeze(2) * self.prior.elementwise(code)).sum(1)
        of_cluster = total(y * log_y) + math.log(self.prior.classes)
        return torch.cat((self._log_posterior(code, parameters) - expected, of_cluster[:, None]), 1)

    def memberships(self, z: Tensor) -> Tensor:
        """Return q(y | z) of codes z, (B, K): the probability of each cluster."""
        return self._log_memberships(z).exp()

    def predictions(self, z: Tensor) -> dict[str, Tensor]:
        """Return the likeliest cluster of each code, (B,): no class, as its number says nothing."""
        return {"clusters": self._log_memberships(z).argmax(1)}

    def _log_memberships(self, z: Tensor) -> Tensor:
        return self.assigner(z).log_softmax(1)

    def _log_posterior(self, z: Tensor, parameters: Tensor) -> Tensor:
        """Return log q(z_j | x) of each number, (B, D)."""
        posterior = self.posterior.inner
        assert isinstance(posterior, Gaussian)
        return posterior.elementwise(z, parameters).flatten(1)

    @classmethod
    def examples(cls) -> Iterator[Case]:
        torch.manual_seed(0)
        encoder, decoder = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)), nn.Linear(1, 2)
        posterior, likelihood = Given(encoder, Normal((1,)), (2,)), Given(decoder, EqualNormal((2,), 0.7), (1,))
        yield Case(cls(ClusterNormal((1,), 3), posterior, likelihood, nn.Linear(1, 3)))

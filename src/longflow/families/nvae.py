"""NVAE, a hierarchy of groups of latents at several scales (Vahdat & Kautz 2020)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from longflow.distributions import Bernoulli, Case, StandardNormal
from longflow.distributions.distribution import total
from longflow.distributions.parametric import Parametric, divergence_of_normals
from longflow.errors import UsageError
from longflow.families.autoencoder import Autoencoder, Draw
from longflow.nets.nvae import BottomUp, Group, Plan, TopDown, top_gains, top_singular_values

CLAMP = 5.0
LEAST = 0.01
"""A deviation's floor."""

Moments = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Step:
    """What inference finds of one group: its latents, (B, latents, ...), and means and log-deviations."""

    z: Tensor
    prior: Moments
    posterior: Moments

    @property
    def divergence(self) -> Tensor:
        """KL(posterior ‖ prior), (B,)."""
        return total(divergence_of_normals(self.posterior, self.prior))

    @property
    def log_ratio(self) -> Tensor:
        """Log q(z) - log p(z), (B,)."""
        (loc, log_scale), (prior_loc, prior_log_scale) = self.posterior, self.prior
        own = ((self.z - loc) * (-log_scale).exp()).square()
        other = ((self.z - prior_loc) * (-prior_log_scale).exp()).square()
        return total(0.5 * (other - own) + prior_log_scale - log_scale)

    @property
    def noise(self) -> Tensor:
        """The latents in deviations from the prior's mean."""
        return (self.z - self.prior[0]) * (-self.prior[1]).exp()


class NVAE(Autoencoder):
    """p(x, z) = p(x | z) Π_l p(z_l | z_<l), q(z | x) = Π_l q(z_l | z_<l, x), both down the same tower.

    A group's prior is normal with the numbers (a, b) that the tower tells, its posterior normal with (a + Δa, b + Δb),
    where features of x tell Δ; the mean is 5 tanh(a/5), the deviation 0.01 + 0.99 exp(5 tanh(b/5)). For z_1, a and b
    are 0: N(0, I). KL is in closed form for each group, given the groups above it that were drawn.

    The latent that the commands see is the noise of all groups, ε_l = (z_l - μ_l)/σ_l in the prior's terms, the
    coarsest first, N(0, I) altogether. `encode` returns that of the posterior's means, each given those above it;
    `scales` are the tower's.

    `encoder` maps (B, *shape) to the features of each group, the coarsest's first; `decoder` is the tower, and `crop`
    what is made of what comes out of it: the parameters of `observation`.
    """

    def __init__(self, encoder: nn.Module, decoder: TopDown, crop: nn.Module, observation: Parametric) -> None:
        super().__init__(observation)
        self.encoder, self.decoder, self.crop = encoder, decoder, crop
        self.base = StandardNormal((sum(decoder.sizes),))
        self.register_buffer("alpha", _balance([group.scale for group in decoder.steps]), persistent=False)

    alpha: Tensor
    """What KL balancing divides each group's KL by, (groups,): 4^k / groups of the scale, k = 0 for the coarsest."""

    def penalties(self) -> dict[str, Tensor]:
        """Return the sum of the convolutions' largest singular values, and of the normalisations' largest scales."""
        return {"spectral": top_singular_values(self).sum(), "gain": top_gains(self).sum()}

    def infer(self, y: Tensor, temperature: float = 1.0) -> tuple[list[Step], Tensor]:
        """Draw the groups of preprocessed rows y from their posteriors, the noise times the temperature.

        Return what was found of each and the parameters of p(x | z), (B, *observation.context_shape).
        """
        features = self.encoder(y)
        steps: list[Step] = []

        def choose(index: int, group: Group, h: Tensor) -> Tensor:
            numbers = group.prior_of(h)
            loc, log_scale = moments(numbers + group.residual_of(h, features[index]))
            z = loc + temperature * log_scale.exp() * torch.randn_like(loc)
            steps.append(Step(z, moments(numbers), (loc, log_scale)))
            return z

        return steps, self.crop(self.decoder(len(y), choose))

    def draw(self, x: Tensor, context: Tensor | None = None) -> Draw:
        steps, reconstruction = self._reconstructed(x, context)
        return Draw(reconstruction, torch.stack([step.divergence for step in steps], 1))

    def log_weight(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        steps, reconstruction = self._reconstructed(x, context)
        return reconstruction - torch.stack([step.log_ratio for step in steps], 1).sum(1)

    def _reconstructed(self, x: Tensor, context: Tensor | None) -> tuple[list[Step], Tensor]:
        """Return what is found of each group for a draw of all, and log p(x | z), (B,)."""
        self.check_events(x, context)
        y, gain = self.first(x)
        steps, parameters = self.infer(y)
        return steps, self.observation.log_prob(y, parameters) + gain

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check_events(x, context)
        return _flat(self.infer(self.first(x)[0], 0.0)[0])

    def condition(self, z: Tensor) -> Tensor:
        """Return the parameters of p(x | z), (B, *observation.context_shape), of noise z, (B, *latent_shape)."""
        parts = z.split(self.decoder.sizes, 1)

        def choose(index: int, group: Group, h: Tensor) -> Tensor:
            loc, log_scale = moments(group.prior_of(h))
            return loc + log_scale.exp() * parts[index].reshape(loc.shape)

        return self.crop(self.decoder(len(z), choose))

    def scales(self, z: Tensor) -> tuple[Tensor, ...]:
        """Return the noise of each scale, (B, groups · latents, ...), the finest first."""
        shapes = self.decoder.latent_shapes
        maps = [p.reshape(-1, *shape) for p, shape in zip(z.split(self.decoder.sizes, 1), shapes, strict=True)]
        owner = [group.scale for group in self.decoder.steps]
        return tuple(
            torch.cat([part for part, k in zip(maps, owner, strict=True) if k == scale], 1)
            for scale in sorted(set(owner))
        )

    @classmethod
    def examples(cls) -> Iterator[Case]:
        torch.manual_seed(0)
        plan = Plan(maps=4, growth=1, groups=(1, 1), latents=1, halvings=0, cells=1, outer_cells=1, norm="act")
        yield Case(cls(BottomUp(1, plan), TopDown(1, plan, (2, 2)), nn.Identity(), Bernoulli((1, 2, 2))), box=(0, 2))


def moments(numbers: Tensor) -> Moments:
    """Return mean and log-deviation, each (B, latents, ...), of what a tower tells, (B, 2 latents, ...)."""
    loc, log_scale = (CLAMP * (numbers / CLAMP).tanh()).chunk(2, 1)
    return loc, (LEAST + (1 - LEAST) * log_scale.exp()).log()


def _balance(scales: list[int]) -> Tensor:
    if not scales:
        raise UsageError("expected at least one group of latents; none came")
    return torch.tensor([4.0 ** (max(scales) - scale) / scales.count(scale) for scale in scales])


def _flat(steps: list[Step]) -> Tensor:
    return torch.cat([step.noise.flatten(1) for step in steps], 1)

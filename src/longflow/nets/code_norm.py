"""Batch normalisation of what an encoder says of codes, so that it must say something."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from longflow.adaptive import Statistic, moments
from longflow.errors import UsageError

EPSILON = 1e-8
LEAST_VARIANCE = 1e-6


class CodeNorm(Statistic):
    """A layer from means and log-deviations, (B, 2L), to others; its statistics are as `Statistic` says."""

    def __init__(self, latent: int) -> None:
        super().__init__((2 * latent,))

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return means and log-deviations, (B, 2L)."""

    def normalised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return both halves of x with mean 0 and deviation 1 over the batch, or over what was settled on."""
        if self.training:
            if len(x) == 1:
                raise UsageError("normalisation over a batch expects at least 2 rows; 1 came")
            mean, std = moments(x, self.mean.shape)
            variance = std.square()
        else:
            mean, variance = self.mean, self.variance
        first, second = ((x - mean) * (variance + EPSILON).rsqrt()).chunk(2, 1)
        return first, second


class MeanNorm(CodeNorm):
    """μ = γ · (what came, normalised) + β with a fixed γ and learned β (Zhu et al. 2020); log σ stays as it came.

    Over a batch, the mean of KL(N(μ, σ²) ‖ N(0, 1)) of each number is then at least (γ² + β²)/2, whatever is learned.
    """

    def __init__(self, latent: int, gamma: float) -> None:
        super().__init__(latent)
        if not 0 < gamma < float("inf"):
            raise UsageError(f"expected gamma > 0; {gamma} came")
        self.gamma = gamma
        self.beta = nn.Parameter(torch.zeros(latent))

    def forward(self, x: Tensor) -> Tensor:
        """Return means and log-deviations, (B, 2L)."""
        return torch.cat((self.gamma * self.normalised(x)[0] + self.beta, x.chunk(2, 1)[1]), 1)


class MomentNorm(CodeNorm):
    """Both μ and σ normalised so that codes have mean 0 and variance 1 over a batch (Su Jianlin's fifth essay).

    μ = √(τ + (1 - τ) s(θ)) · μ̂ and σ² = (1 - τ) s(-θ) · σ̂² + ε with the logistic s, a learned θ for each number, and μ̂
    and σ̂ what came, of mean 0 and variance 1: E μ = 0 and E (μ² + σ²) = 1 + ε. As σ̂ is of either sign it passes 0,
    where -log σ² has no bound but by ε. A share τ of the variance at least is that of μ, so that the mean of KL is at
    least τ/2 for each number.
    """

    def __init__(self, latent: int, tau: float) -> None:
        super().__init__(latent)
        if not 0 <= tau < 1:
            raise UsageError(f"expected 0 <= tau < 1; {tau} came")
        self.tau = tau
        self.theta = nn.Parameter(torch.zeros(latent))

    def forward(self, x: Tensor) -> Tensor:
        """Return means and log-deviations, (B, 2L)."""
        loc, scale = self.normalised(x)
        spread = (self.tau + (1 - self.tau) * torch.sigmoid(self.theta)).sqrt()
        variance = (1 - self.tau) * torch.sigmoid(-self.theta) * scale.square()
        return torch.cat((spread * loc, 0.5 * torch.log(variance + LEAST_VARIANCE)), 1)

"""Where a density is, and how wide: its mode and curvature, from which a flow starts."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from longflow.bijections import Bijection, Chain, Standardise, TriangularLinear
from longflow.distributions import Flow, StandardNormal
from longflow.distributions.bases import HALF_LOG_2PI
from longflow.errors import UsageError
from longflow.inference.divergences import LogDensity, evaluated

NEWTON_STEPS = 50
TOLERANCE = 1e-8
"""Of the gradient's length in the curvature's metric: deviations from the mode."""


@dataclass(frozen=True, eq=False)
class Laplace:
    """The normal distribution of a density's mode and curvature, N(mode, L Lᵀ) with L Lᵀ = (-∂² log p̃)⁻¹.

    `log_z` is Laplace's estimate of log ∫ p̃, in nats: log p̃(mode) + D/2 log 2π + log|L|.
    """

    mode: Tensor
    scale_tril: Tensor
    log_z: float

    def whitening(self) -> Bijection:
        """Return x ↦ L⁻¹(x - mode), whose L goes on learning: `flow.preprocess` puts it next to the data."""
        return Chain(Standardise(self.mode, 1.0), TriangularLinear(len(self.mode), self.scale_tril))

    def flow(self) -> Flow:
        """Return the normal distribution itself, a proposal, in float64."""
        return Flow(self.whitening(), StandardNormal(tuple(self.mode.shape))).double()


def laplace(log_density: LogDensity, start: Tensor) -> Laplace:
    """Climb from `start`, (D,), to a mode of p̃, in float64: by L-BFGS, then by Newton's steps.

    Raises UsageError where the climb ends at no maximum (a flat direction, a saddle, an unbounded density).
    """
    if start.dim() != 1:
        raise UsageError(f"Laplace's approximation expects a start of shape (D,); {tuple(start.shape)} came")

    def single(x: Tensor) -> Tensor:
        return evaluated(log_density, x[None])[0]

    mode = _climbed(single, start.double())
    for _ in range(NEWTON_STEPS):
        factor, gradient = _curvature(single, mode), torch.autograd.functional.jacobian(single, mode)
        white = factor.T @ gradient
        if float(white.norm()) < TOLERANCE:
            height = float(single(mode))
            return Laplace(mode, factor, height + len(mode) * HALF_LOG_2PI + float(factor.diagonal().log().sum()))
        mode = mode + factor @ white / max(1.0, float(white.norm()))
    raise UsageError(f"no mode of the log-density was found: after {NEWTON_STEPS} steps the gradient is {gradient}")


def _climbed(single: LogDensity, start: Tensor) -> Tensor:
    x = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([x], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def height() -> Tensor:
        optimiser.zero_grad()
        loss = -single(x)
        loss.backward()
        return loss

    optimiser.step(height)
    return x.detach()


def _curvature(single: LogDensity, mode: Tensor) -> Tensor:
    """Return L, lower triangular, of L Lᵀ = (-∂² log p̃)⁻¹."""
    precision = -torch.autograd.functional.hessian(single, mode)
    try:
        covariance = torch.cholesky_inverse(torch.linalg.cholesky(precision))
        return torch.linalg.cholesky(covariance)
    except RuntimeError as error:  # torch.linalg.LinAlgError is one
        least = float(torch.linalg.eigvalsh(precision).min()) if bool(precision.isfinite().all()) else math.nan
        raise UsageError(
            f"no maximum of the log-density was found: a curvature of {-least:.3g} is left there"
        ) from error

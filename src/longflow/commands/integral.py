"""The integral of a density of the plane, which is 1 where it is normalised."""

import torch
from torch import Tensor
from torch.func import jacrev

from longflow.distributions import Flow
from longflow.errors import InversionError

NORMALISED = 1e-3
GRID = 1500
COARSE_GRID = 500
"""Cells a side where each log-determinant costs a Jacobian in every block, or where there are several integrals."""

NEIGHBOURHOODS = 200
CONTEXTS = 3
"""Contexts at which a conditional density is integrated."""


def mass_of(flow: Flow, data: Tensor, context: Tensor | None) -> tuple[float, bool] | None:
    """Return the integral and whether it is resolved; None where samples, which set its box, cannot be drawn.

    Under contexts it is the one that is farthest from 1, of those that are resolved where any is.
    """
    try:
        if context is None:
            return integral(flow, data)
        found = [integral(flow.at(c), data[:0], COARSE_GRID) for c in context[:CONTEXTS]]
        return max(found, key=lambda pair: (pair[1], abs(pair[0] - 1)))
    except InversionError:
        return None


def integral(flow: Flow, data: Tensor, grid: int = GRID) -> tuple[float, bool]:
    """Integrate a density of the plane by the midpoint rule; return the integral and whether the grid resolves it.

    The box is the range of the data and of 20,000 samples, thrice as wide. The grid resolves the density where halving
    its cells changes nothing, and where a cell is smaller than the distance 1/‖∂z/∂x‖ (by autograd) over which z moves
    by one, at nine in ten of the samples.
    """
    with torch.no_grad():
        own = flow.sample(20000)
        points = torch.cat((own, data))
        low, high = points.amin(0), points.amax(0)
        low, high = low - (high - low), high + (high - low)
        most = grid if flow.bijection.exact else COARSE_GRID
        coarse, fine = (_midpoints(flow, low, high, cells) for cells in (most // 2, most))
    slopes = torch.stack([jacrev(lambda row: flow.encode(row[None])[0])(x) for x in own[:NEIGHBOURHOODS]])
    width = (1 / torch.linalg.matrix_norm(slopes, 2)).quantile(0.1)
    small = float(((high - low) / most).max()) <= float(width.detach())
    return fine, small and abs(fine - coarse) <= NORMALISED


def _midpoints(flow: Flow, low: Tensor, high: Tensor, cells: int) -> float:
    steps = (torch.arange(cells).to(low) + 0.5) / cells
    axes = [low[k] + (high[k] - low[k]) * steps for k in range(2)]
    parts = (torch.cartesian_prod(part, axes[1]) for part in axes[0].split(50))
    total = torch.stack([flow.log_prob(x).exp().sum() for x in parts]).sum()
    return float(total * ((high - low) / cells).prod())

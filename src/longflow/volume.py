"""The determinant of a matrix that is not square: the volume that its columns span."""

import math

import torch
from torch import Tensor

ROUNDINGS = 16
"""What Householder's QR leaves of a dependent column is up to a few ε of its length, somewhat more of many columns."""


def log_volume(matrix: Tensor) -> Tensor:
    """Return log √det(BᵀB) of tall matrices B, log √det(BBᵀ) of wide and log|det B| of square ones, in nats.

    It is the logarithm of the volume that the columns (rows) of B span, the product of B's singular values (细水长flow,
    the essay on the determinant of a matrix that is not square). BᵀB squares the singular values and so loses half of
    the digits; this is Σ log|r_ii| of B = QR instead. The gradient is that of the pseudo-inverse, (B⁺)ᵀ, and can be
    differentiated again.

    Where a column is, up to its own rounding (16 √k ε of its length), a combination of those before it, the volume is
    0, its logarithm is -inf, and what autograd returns there is arbitrary. The length of a column is no reason to call
    it dependent, nor is the number of its entries, whose roundings are those of each.

    Args:
        matrix: (..., n, k), of any n and k; a matrix without columns spans the volume 1.

    Returns:
        The log-volumes, (...).
    """
    tall = matrix if matrix.shape[-2] >= matrix.shape[-1] else matrix.mT
    heights = torch.linalg.qr(tall).R.diagonal(dim1=-2, dim2=-1).abs()
    rounding = ROUNDINGS * math.sqrt(tall.shape[-1]) * torch.finfo(tall.dtype).eps
    spanned = heights > rounding * torch.linalg.vector_norm(tall.detach(), dim=-2)
    return torch.where(spanned, heights, 0).log().sum(-1)


def volume(matrix: Tensor) -> Tensor:
    """Return the volume that the columns of tall matrices (..., n, k) span, or the rows of wide ones: (...), >= 0."""
    return log_volume(matrix).exp()

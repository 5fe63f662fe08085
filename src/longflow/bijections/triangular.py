"""Whitening by a Cholesky factor."""

import torch
from torch import Tensor, nn

from longflow.bijections.linear import Linear
from longflow.errors import UsageError


class TriangularLinear(Linear):
    """W = L⁻¹, L lower triangular of diagonal exp(s); log|det W| = -Σ s.

    For whitening: L is a Cholesky factor of the covariance of x where z is white. The inverse, by which one samples, is
    a product with L itself. A flow of a shift and this one is the normal distribution of full covariance. It starts at
    `scale_tril`, and else at the identity.
    """

    def __init__(self, features: int, scale_tril: Tensor | None = None) -> None:
        super().__init__()
        start = torch.eye(features) if scale_tril is None else scale_tril
        if start.shape != (features, features) or not bool((start.diagonal() > 0).all()):
            raise UsageError(f"expected a lower triangular matrix of {features} rows with a positive diagonal")
        self.log_scale = nn.Parameter(start.diagonal().log().to(torch.get_default_dtype()))
        self.lower = nn.Parameter(start.tril(-1).to(torch.get_default_dtype()))

    def inverse_matrix(self) -> Tensor:
        return self.lower.double().tril(-1) + torch.diag(self.log_scale.double().exp())

    def matrix(self) -> Tensor:
        factor = self.inverse_matrix()
        return torch.linalg.solve_triangular(factor, torch.eye(len(factor)).to(factor), upper=False)

    def log_abs_det(self) -> Tensor:
        return -self.log_scale.sum()

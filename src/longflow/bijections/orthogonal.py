"""Orthogonal mixing of the features: log-determinant 0, and the transpose for the inverse."""

import torch
from torch import Tensor, nn

from longflow.bijections.linear import Linear, reflections_between
from longflow.errors import UsageError


class Householder(Linear):
    """W = H_1 H_2 … H_K, reflections H = I - 2 v vᵀ/|v|² (Tomczak & Welling 2016, section 3).

    Applied as x - A (V x), V of shape (K, D) and A = Vᵀ T of shape (D, K): W is not built. Every orthogonal matrix is a
    product of at most D; by default as many.
    """

    def __init__(self, features: int, *, reflections: int | None = None) -> None:
        super().__init__()
        count = features if reflections is None else reflections
        if count < 1:
            raise UsageError(f"Householder expects reflections >= 1; {count} came")
        self.reflections = nn.Parameter(torch.randn(count, features))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._reflected(reflections_between(self.reflections.double()), x), self._log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._reflected(reflections_between(self.reflections.double()).T, z), self._log_det(z)

    def _reflected(self, between: Tensor, x: Tensor) -> Tensor:
        v = self.reflections.double()
        return x - self._mix(v.T @ between, self._mix(v, x))

    def matrix(self) -> Tensor:
        v = self.reflections.double()
        return torch.eye(v.shape[1]).to(v) - v.T @ reflections_between(v) @ v

    def inverse_matrix(self) -> Tensor:
        return self.matrix().T

    def log_abs_det(self) -> Tensor:
        return self.reflections.new_zeros(())


class Rotation(Linear):
    """W = (I - A)(I + A)⁻¹, A = U - Uᵀ skew, U the upper triangle of the parameter (Cayley 1846).

    Every A gives a rotation; those of an angle π are missed. It costs a twelfth of the exponential of A at D = 64.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.skew = nn.Parameter(torch.randn(features, features) / features**0.5)

    def _both(self) -> tuple[Tensor, Tensor]:
        upper = self.skew.double().triu(1)
        one, a = torch.eye(len(upper)).to(upper), upper - upper.T
        return one + a, one - a

    def matrix(self) -> Tensor:
        return torch.linalg.solve(*self._both())

    def inverse_matrix(self) -> Tensor:
        return self.matrix().T

    def log_abs_det(self) -> Tensor:
        return self.skew.new_zeros(())

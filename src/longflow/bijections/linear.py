"""Invertible linear mixing of the features: for pictures, Glow's 1×1 convolutions (Kingma & Dhariwal 2018, §3.2)."""

from abc import abstractmethod
from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor, nn

from longflow.bijections.bijection import Bijection, Example


class Linear(Bijection):
    """z = W x on axis 1, the same at every place of space; log|det| = places · log|det W|.

    A leaf gives the matrix, its inverse and log|det W|, in float64: they are small, and a rounded inverse is none. W
    starts orthogonal.
    """

    @abstractmethod
    def matrix(self) -> Tensor:
        """Return W, of shape (D, D)."""

    @abstractmethod
    def inverse_matrix(self) -> Tensor:
        """Return W⁻¹, of shape (D, D)."""

    @abstractmethod
    def log_abs_det(self) -> Tensor:
        """Return log|det W|, a scalar."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._mix(self.matrix(), x), self._log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._mix(self.inverse_matrix(), z), -self._log_det(z)

    def _mix(self, matrix: Tensor, x: Tensor) -> Tensor:
        places = prod(x.shape[2:])
        return (matrix.to(x.dtype) @ x.reshape(x.shape[0], x.shape[1], places)).reshape(x.shape)

    def _log_det(self, x: Tensor) -> Tensor:
        return (prod(x.shape[2:]) * self.log_abs_det()).to(x.dtype).expand(x.shape[0])

    @classmethod
    def examples(cls) -> Iterator[Example]:
        build: type = cls
        yield Example(build(3), (3,))
        yield Example(build(4), (4, 2, 3))


class FreeLinear(Linear):
    """W itself is the parameter (Glow's default)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(random_rotation(features))

    def matrix(self) -> Tensor:
        return self.weight.double()

    def inverse_matrix(self) -> Tensor:
        return torch.linalg.inv(self.weight.double())

    def log_abs_det(self) -> Tensor:
        return torch.linalg.slogdet(self.weight.double()).logabsdet


class PLULinear(Linear):
    """W = P L (U + diag(sign · exp(s))), P and the signs fixed; log|det W| = Σ s (Glow, eq. 10 and 11)."""

    permutation: Tensor
    sign: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        p, lower, upper = torch.linalg.lu(random_rotation(features))
        self.register_buffer("permutation", p)
        self.register_buffer("sign", upper.diagonal().sign())
        self.log_scale = nn.Parameter(upper.diagonal().abs().log())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))

    def _factors(self) -> tuple[Tensor, Tensor]:
        lower = self.lower.double().tril(-1)
        diagonal = self.sign.double() * self.log_scale.double().exp()
        return lower + torch.eye(len(self.sign)).to(lower), self.upper.double().triu(1) + torch.diag(diagonal)

    def matrix(self) -> Tensor:
        lower, upper = self._factors()
        return self.permutation.double() @ lower @ upper

    def inverse_matrix(self) -> Tensor:
        lower, upper = self._factors()
        below = torch.linalg.solve_triangular(lower, self.permutation.double().T, upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, below, upper=True)

    def log_abs_det(self) -> Tensor:
        return self.log_scale.sum()


class QRLinear(Linear):
    """W = Q R: Q a product of D Householder reflections, R upper triangular of diagonal exp(s); log|det W| = Σ s.

    (Householder products: Tomczak & Welling 2016; QR for flows: Hoogeboom et al. 2019.)
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.reflections = nn.Parameter(torch.randn(features, features))
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.upper = nn.Parameter(torch.zeros(features, features))

    def _q(self) -> Tensor:
        q = torch.eye(len(self.log_scale)).to(self.upper).double()
        for v in self.reflections.double():
            q = q - 2 * torch.outer(q @ v, v) / v.square().sum()
        return q

    def _r(self) -> Tensor:
        return self.upper.double().triu(1) + torch.diag(self.log_scale.double().exp())

    def matrix(self) -> Tensor:
        return self._q() @ self._r()

    def inverse_matrix(self) -> Tensor:
        return torch.linalg.solve_triangular(self._r(), self._q().T, upper=True)

    def log_abs_det(self) -> Tensor:
        return self.log_scale.sum()


class ExpLinear(Linear):
    """W = exp A, whose inverse is exp(-A) and whose log-determinant is tr A: det exp A = exp tr A.

    (The identity of 细水长flow's essay on determinants; as a flow layer: Hoogeboom et al. 2020.) Every A gives an
    invertible W of positive determinant. A starts skew, so that W starts as a rotation.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        a = torch.randn(features, features)
        self.log_matrix = nn.Parameter((a - a.T) / 2)

    def matrix(self) -> Tensor:
        return torch.linalg.matrix_exp(self.log_matrix.double())

    def inverse_matrix(self) -> Tensor:
        return torch.linalg.matrix_exp(-self.log_matrix.double())

    def log_abs_det(self) -> Tensor:
        return self.log_matrix.trace()


def random_rotation(features: int) -> Tensor:
    """Draw an orthogonal matrix (D, D) from the Haar measure."""
    q, r = torch.linalg.qr(torch.randn(features, features, dtype=torch.float64))
    return (q * r.diagonal().sign()).to(torch.get_default_dtype())

"""Invertible linear mixing of the features: for pictures, Glow's 1×1 convolutions (Kingma & Dhariwal 2018, §3.2)."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from math import prod

import torch
import torch.nn.functional as F
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
        if x.dim() == 2:  # One product; torch makes one for each row of what follows, up to ten times as slow.
            return F.linear(x, matrix.to(x.dtype))
        places = prod(x.shape[2:])
        mixed = matrix.to(x.dtype) @ x.reshape(x.shape[0], x.shape[1], places)
        return mixed.reshape(x.shape[0], len(matrix), *x.shape[2:])

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
    """W = P L (U + diag(sign · exp(s))), P and the signs fixed; log|det W| = Σ s (Glow, eq. 10 and 11).

    `start` draws the matrix (D, D) at which it starts: a rotation, or (Durkan et al. 2019) a permutation.
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, features: int, *, start: Callable[[int], Tensor] | None = None) -> None:
        super().__init__()
        p, lower, upper = torch.linalg.lu((start or random_rotation)(features))
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
        v = self.reflections.double()
        return torch.eye(len(v)).to(v) - v.T @ reflections_between(v) @ v

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


def reflections_between(v: Tensor) -> Tensor:
    """Return T, (K, K), by which the reflections I - 2 v vᵀ/|v|² in the rows v of V, (K, D), multiply to I - Vᵀ T V.

    T⁻¹ is the upper triangle of V Vᵀ, its diagonal halved (the compact form: Joffrain et al. 2006).
    """
    inverse = (v @ v.T).triu()
    one = torch.eye(len(v)).to(v)
    return torch.linalg.solve_triangular(inverse * (1 - one / 2), one, upper=True)


def random_rotation(features: int) -> Tensor:
    """Draw an orthogonal matrix (D, D) from the Haar measure."""
    q, r = torch.linalg.qr(torch.randn(features, features, dtype=torch.float64))
    return (q * r.diagonal().sign()).to(torch.get_default_dtype())


def random_permutation(features: int) -> Tensor:
    """Draw a permutation matrix (D, D)."""
    return torch.eye(features).index_select(0, torch.randperm(features))

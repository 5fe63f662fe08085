"""The autoregressive combinator: each feature moves by parameters that the features before it set."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from longflow.bijections.bijection import Bijection, Example
from longflow.bijections.elementwise import Affine, Elementwise, Shift
from longflow.nets.causal import Causal
from longflow.nets.made import MADE, ResMADE


class Autoregressive(Bijection):
    """z_d = transform(x_d; θ_d), θ_d = conditioner(x_1, …, x_{d-1}, context) (Papamakarios et al. 2017, section 3).

    `conditioner` maps vectors (B, D) to (B, k·D), parameter by parameter, θ_d a function of the features before d in
    some order of its own. `forward` is one pass of it. The inverse solves for one feature after the other:

    - by a `Causal` conditioner, which computes each hidden unit once: the arithmetic of one pass, in D small steps;
    - by any other, in D passes: after pass n the first n features in its order are right, whatever the others are.

    Both are exact and differentiable.
    """

    def __init__(self, transform: Elementwise, conditioner: nn.Module) -> None:
        super().__init__()
        self.transform = transform
        self.conditioner = conditioner

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform(x, self._parameters_given(x, context))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if isinstance(self.conditioner, Causal):
            return self._unrolled(self.conditioner, z, context)
        return self._passed(z, context)

    def _unrolled(self, conditioner: Causal, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        log_dets = []

        def answer(d: int, theta: Tensor) -> Tensor:
            value, log_det = self.transform.inverse(z[:, d : d + 1], theta)
            log_dets.append(log_det)
            return value

        x = conditioner.unroll(answer, z[:, :0].to(self._own_dtype(z)), context)
        return x, torch.stack(log_dets).sum(0)

    def _passed(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_det = z, z.new_zeros(len(z))
        for _ in range(z.shape[1]):
            x, log_det = self.transform.inverse(z, self._parameters_given(_tame(x), context))
        return x, log_det

    def _parameters_given(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.conditioner(x.to(self._own_dtype(x)), context)

    def _own_dtype(self, x: Tensor) -> torch.dtype:
        """Return the conditioner's type: a chain may carry values in a wider one."""
        return next((p.dtype for p in self.conditioner.parameters()), x.dtype)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(Affine(), MADE(4, 2, hidden=9, depth=2, activation=nn.Tanh)), (4,))
        yield Example(cls(Affine(), MADE(2, 2, hidden=5, depth=1, context=2)), (2,), (2,))
        yield Example(cls(Shift(), ResMADE(3, 1, hidden=8, blocks=2, context=2)), (3,), (2,))


def _tame(x: Tensor) -> Tensor:
    """Return x with noughts for what is too large to be squared: a masked infinity is no nought, but not a number."""
    return torch.where(x.abs() < torch.finfo(x.dtype).max ** 0.5, x, 0)

"""The autoregressive combinator: each feature moves by parameters that the features before it set."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from longflow.bijections.bijection import Bijection, Example
from longflow.bijections.elementwise import Affine, Elementwise, Shift
from longflow.nets.causal import Causal
from longflow.nets.made import MADE, ResMADE

ROUNDINGS = 4
LIKELY = 10
"""Passes that trained models need, by experience; where fewer can be afforded, none is tried."""

STEP = 5e6
"""Multiplications that take as long as a small step of a walk with few rows."""

WIDE = 1500
"""Rows at which a small step takes twice as long."""


class Autoregressive(Bijection):
    """z_d = transform(x_d; θ_d), θ_d = conditioner(x_1, …, x_{d-1}, context) (Papamakarios et al. 2017, section 3).

    `conditioner` maps vectors (B, D) to (B, k·D), parameter by parameter, θ_d a function of the features before d in
    some order of its own. `forward` is one pass of it. Three inverses agree to rounding:

    - A `Causal` conditioner is walked: feature after feature, each hidden unit computed once. It costs the arithmetic
      of one pass, in D small steps.
    - Any other is passed D times: after pass n the first n features in its order are right, whatever the others are.
    - Where no gradient is wanted, passes of all features at once come first (Jacobi's iteration: Song et al. 2021),
      which end, row by row, when a pass changes no number by more than its rounding: then the equations hold. Trained
      models were seen to need about 10, of D up to 256. So many are tried as cost what a walk does, if that is not too
      few; the walk takes the rows that are left.

    All are exact; the first two are differentiable, as often as the networks are.
    """

    def __init__(self, transform: Elementwise, conditioner: nn.Module) -> None:
        super().__init__()
        self.transform = transform
        self.conditioner = conditioner

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform(x, self._parameters_given(x, context))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self._stepped(z, context)
        x, log_det, rows = self.sweep(z, context, self._passes_worth(z))
        if len(rows):
            found = self._stepped(z[rows], None if context is None else context[rows])
            x, log_det = x.index_copy(0, rows, found[0]), log_det.index_copy(0, rows, found[1])
        return x, log_det

    @torch.no_grad()
    def sweep(self, z: Tensor, context: Tensor | None, most: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return what at most so many passes of all features at once make of z, and the rows that are not done.

        After D passes all are.
        """
        x, log_det, rows, guess = z, z.new_zeros(len(z)), torch.arange(len(z), device=z.device), z
        for _ in range(most if len(z) else 0):
            theta = self._parameters_given(_tame(guess), None if context is None else context[rows])
            value, change = self.transform.inverse(z[rows], theta)
            x, log_det = x.index_copy(0, rows, value), log_det.index_copy(0, rows, change)
            rounding = ROUNDINGS * torch.finfo(z.dtype).eps * (1 + value.abs())
            left = ~((value - guess).abs() <= rounding).all(1)
            rows, guess = rows[left], value[left]
            if not len(rows):
                break
        return x, log_det, rows[:0] if most >= z.shape[1] else rows

    def _passes_worth(self, z: Tensor) -> int:
        """Return the passes that cost as much as a walk, in its small steps; 0 where they are too few to be likely."""
        dims, rows = z.shape[1], len(z)
        if not isinstance(self.conditioner, Causal):
            return dims
        work = rows * sum(p.numel() for p in self.conditioner.parameters()) / STEP
        most = int((dims * (1 + rows / WIDE) + work / 2) / (1 + work))
        return most if most >= min(LIKELY, dims) else 0

    def _stepped(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if isinstance(self.conditioner, Causal):
            return self._walked(self.conditioner, z, context)
        x, log_det = z, z.new_zeros(len(z))
        for _ in range(z.shape[1]):
            x, log_det = self.transform.inverse(z, self._parameters_given(_tame(x), context))
        return x, log_det

    def _walked(self, conditioner: Causal, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        log_dets = []

        def answer(d: int, theta: Tensor) -> Tensor:
            value, log_det = self.transform.inverse(z[:, d : d + 1], theta)
            log_dets.append(log_det)
            return value

        x = conditioner.unroll(answer, z[:, :0].to(self._own_dtype(z)), context)
        return x, torch.stack(log_dets).sum(0)

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

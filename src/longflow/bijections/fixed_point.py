"""Solving x + g(x) = z for a contraction g: Picard's iteration, and Anderson's where that is slow."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from longflow.errors import InversionError, UsageError

Step = Callable[[Tensor, Tensor], Tensor]
"""From (x, rows), of shapes (R, ...) and (R,), to z - g(x) for these rows of the batch."""

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6}
SLOW = 0.6
HISTORY = 5
RIDGE = 1e-10
ROUNDINGS = 16
STALLED = 30
SLACK, SLACK_ROUNDINGS = 1.02, 10


@dataclass(frozen=True)
class FixedPoint:
    """How the inverse is iterated.

    Row by row, until ‖x - x*‖₂ ≤ L/(1 - L) · ‖Δx‖₂ is below `tolerance`, Δx the last step and L the bound on the slope;
    or until the step is at the rounding of x and z, beyond which nothing is gained. Where a step is longer
    than 0.6 of the one before, Anderson's acceleration (1965) takes over for that row, kept only where it does shorten
    the step.

    Attributes:
        tolerance: Error allowed in x, in its units; by default 1e-6 in float32 and 1e-12 in float64, relative to ‖x‖
            where that is above 1.
        most: Iterations after which rows that have not converged are an error.
        accelerate: Whether to use Anderson's acceleration.
    """

    tolerance: float | None = None
    most: int = 1000
    accelerate: bool = True

    def __post_init__(self) -> None:
        if self.tolerance is not None and not self.tolerance > 0:
            raise UsageError(f"an inverse by iteration expects a tolerance > 0; {self.tolerance} came")
        if self.most < 1:
            raise UsageError(f"an inverse by iteration expects most >= 1; {self.most} came")


@torch.no_grad()
def solve(step: Step, start: Tensor, z: Tensor, slope: float, how: FixedPoint) -> tuple[Tensor, Tensor]:
    """Return the fixed points x = step(x) = z - g(x) of a batch, and the iterations that each row took, (B,).

    Raises InversionError, naming rows and errors, where `how.most` iterations do not do, where none brings a row
    nearer, where x is no longer finite, or where g is seen to be steeper than `slope`.
    """
    answer, counts = start.clone(), torch.zeros(len(start), dtype=torch.long, device=start.device)
    work = _Rows(step, start, accelerate=how.accelerate)
    factor, scale = slope / (1 - slope), _length(z)
    tolerance = TOLERANCES.get(start.dtype, 1e-3) if how.tolerance is None else how.tolerance
    for count in range(1, how.most + 1):
        if not len(work.rows):
            break
        length, size = work.norms()
        allowed = tolerance * (size.clamp_min(1) if how.tolerance is None else 1)
        rounding = ROUNDINGS * torch.finfo(start.dtype).eps * (size + scale[work.rows] + 1)
        work.note_steep(slope, rounding)
        stalled = work.stalled >= STALLED
        done = (factor * length <= allowed) | (length <= torch.where(stalled, STALLED * rounding, rounding))
        done &= (size + length).isfinite() & ~work.steep
        lost = ~(size + length).isfinite() | stalled | work.steep
        over = done | lost | (count == how.most)
        if bool(over.any()):
            answer[work.rows[over]] = work.value()[over]
            counts[work.rows[over]] = count
            work.fail(over & ~done, factor * length, count)
            work.met_steep |= bool(work.steep.any())
            work.keep(~over)
        work.advance()
    if work.failed:
        raise _failure(work.failed, steep=work.met_steep)
    return answer, counts


class _Rows:
    """The rows that have not converged: their x, the residual step(x) - x, and the last few of both."""

    def __init__(self, step: Step, start: Tensor, *, accelerate: bool) -> None:
        self.step, self.accelerate = step, accelerate
        self.rows = torch.arange(len(start), device=start.device)
        self.x = start
        self.residual = self.step(start, self.rows) - start
        self.xs: list[Tensor] = []
        self.residuals: list[Tensor] = []
        self.slow = torch.zeros(len(start), dtype=torch.bool, device=start.device)
        self.stalled = torch.zeros(len(start), dtype=torch.long, device=start.device)
        self.best = torch.full((len(start),), torch.inf, dtype=start.dtype, device=start.device)
        self.steep = torch.zeros_like(self.slow)
        self.met_steep = False
        self.before = (start, self.residual)
        self.failed: list[tuple[int, float, int]] = []

    def norms(self) -> tuple[Tensor, Tensor]:
        """Return the length of each row's step and of its x, (R,)."""
        return _length(self.residual), _length(self.x)

    def value(self) -> Tensor:
        """Return the best x at hand: one step beyond the last that was evaluated."""
        return self.x + self.residual

    def fail(self, which: Tensor, errors: Tensor, count: int) -> None:
        """Note rows that are given up, with the error that they have after so many iterations."""
        given_up = zip(self.rows[which].tolist(), errors[which].tolist(), strict=True)
        self.failed += [(row, error, count) for row, error in given_up]

    def keep(self, which: Tensor) -> None:
        """Go on with these rows only."""
        for name in ("rows", "x", "residual", "slow", "stalled", "best", "steep"):
            setattr(self, name, getattr(self, name)[which])
        self.before = (self.before[0][which], self.before[1][which])
        self.xs, self.residuals = [a[which] for a in self.xs], [a[which] for a in self.residuals]

    def note_steep(self, slope: float, rounding: Tensor) -> None:
        """Note rows at which g changed by more than its slope allows: a root of such a g need not be the only one."""
        x, residual = self.before
        change = _length(self.x + self.residual - x - residual)
        self.steep = self.steep | (change > SLACK * slope * _length(self.x - x) + SLACK_ROUNDINGS * rounding)

    def advance(self) -> None:
        """Take a step: Picard's, or Anderson's for slow rows where it makes the residual shorter."""
        if not len(self.rows):
            return
        before = _length(self.residual)
        self.xs, self.residuals = [*self.xs, self.x][-HISTORY:], [*self.residuals, self.residual][-HISTORY:]
        plain = self.x + self.residual
        faster = self.accelerate and len(self.xs) > 1 and bool(self.slow.any())
        tried = torch.where(_wide(self.slow, plain), self._mixed(), plain) if faster else plain
        residual = self.step(tried, self.rows) - tried
        if faster:
            worse = self.slow & ~(_length(residual) < before)
            if bool(worse.any()):
                tried = torch.where(_wide(worse, plain), plain, tried)
                residual[worse] = self.step(tried[worse], self.rows[worse]) - tried[worse]
        self.before = (self.x, self.residual)
        self.x, self.residual = tried, residual
        after = _length(residual)
        self.slow = self.slow | (after > SLOW * before)
        better = after < 0.99 * self.best
        self.stalled = torch.where(better, 0, self.stalled + 1)
        self.best = torch.where(better, after, self.best)

    def _mixed(self) -> Tensor:
        """Return Σ α_i (x_i + residual_i), Σ α_i = 1, of which the mixed residual is shortest, in float64."""
        residuals = torch.stack([r.flatten(1) for r in self.residuals], 1).double()
        gram = residuals @ residuals.transpose(1, 2)
        scale = gram.diagonal(dim1=1, dim2=2).amax(1).clamp_min(torch.finfo(gram.dtype).tiny)
        one = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
        system = gram / scale[:, None, None] + RIDGE * one
        alpha = torch.linalg.solve(system, torch.ones_like(system[..., :1]))
        alpha = alpha / alpha.sum(1, keepdim=True)
        reached = torch.stack([(x + r).flatten(1) for x, r in zip(self.xs, self.residuals, strict=True)], 1)
        return (alpha.transpose(1, 2) @ reached.double())[:, 0].to(self.x.dtype).reshape(self.x.shape)


def _length(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x.flatten(1), dim=1)


def _wide(which: Tensor, x: Tensor) -> Tensor:
    return which.reshape(-1, *[1] * (x.dim() - 1))


def _failure(failed: list[tuple[int, float, int]], *, steep: bool) -> InversionError:
    failed = sorted(failed)
    shown = ", ".join(f"{row} (error up to {error:.2g} after {count} iterations)" for row, error, count in failed[:5])
    more = f" and {len(failed) - 5} more" if len(failed) > 5 else ""
    return InversionError(
        f"the inverse did not converge for {'row' if len(failed) == 1 else 'rows'} {shown}{more} of the batch"
        + ("; a branch is steeper than its bound: were its norms constrained after each step?" if steep else ""),
        [row for row, _, _ in failed],
        [error for _, error, _ in failed],
    )

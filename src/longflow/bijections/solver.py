"""Integrating ordinary differential equations: in steps that are known beforehand, or chosen on the way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal

import torch
from torch import Tensor

from longflow.errors import IntegrationError, UsageError, choose

State = tuple[Tensor, ...]
"""What is integrated: tensors of shape (B, ...), row by row."""

Rates = Callable[[Tensor, State], State]
"""(t, y) to dy/dt, with t of shape ()."""

Method = Literal["euler", "midpoint", "rk4", "bosh3", "dopri5", "dopri8"]


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta rule: y ← y + h Σ b_i k_i, k_i = rates(t + h Σ_j a_ij, y + h Σ_j a_ij k_j)."""

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    order: int


TABLEAUS = {
    "euler": Tableau(((),), (1.0,), 1),
    "midpoint": Tableau(((), (1 / 2,)), (0.0, 1.0), 2),
    "rk4": Tableau(((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)), (1 / 8, 3 / 8, 3 / 8, 1 / 8), 4),
}
"""Rules of equal steps (Hairer, Nørsett & Wanner 1993, II.1); rk4 is Kutta's 3/8 rule."""

ADAPTIVE = ("bosh3", "dopri5", "dopri8")
"""Embedded pairs of torchdiffeq (Chen 2018), which choose their steps."""


@dataclass(frozen=True)
class Solver:
    """How a differential equation is integrated from 0 to 1 or back.

    `euler`, `midpoint` and `rk4` take `steps` equal steps, with an error of order steps⁻¹, steps⁻² and steps⁻⁴. They
    are one smooth map of each row: rows do not meet, gradients are exactly those of the values, and they compile.

    `bosh3`, `dopri5` and `dopri8` choose steps so that the error estimated for a step is below tolerance · (1 + |y|),
    in the root mean square over each row, for the worst row. All rows take the same steps, hence rows meet: the others
    of a batch change a row within the tolerance. The error of the whole way may be several tolerances. Gradients are
    through the steps that were taken.

    Attributes:
        method: The rule.
        steps: Equal steps of euler, midpoint and rk4.
        tolerance: Of the methods that choose their steps.
    """

    method: Method = "rk4"
    steps: int = 8
    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        choose("solver", self.method, (*TABLEAUS, *ADAPTIVE))
        if not isinstance(self.steps, int) or isinstance(self.steps, bool) or self.steps < 1:
            raise UsageError(f"a solver expects steps, a whole number >= 1; {self.steps!r} came")
        if not (self.tolerance > 0 and isfinite(self.tolerance)):
            raise UsageError(f"a solver expects a tolerance > 0; {self.tolerance} came")

    @property
    def adaptive(self) -> bool:
        """Whether it chooses its steps."""
        return self.method in ADAPTIVE

    @property
    def evaluations(self) -> int | None:
        """How often it asks for rates; None where it depends on them."""
        return None if self.adaptive else self.steps * len(TABLEAUS[self.method].b)

    def finer(self) -> "Solver":
        """Return a solver of twice as many steps, or of a tenth of the tolerance."""
        return replace(self, steps=2 * self.steps, tolerance=self.tolerance / 10)

    def integrate(self, rates: Rates, state: State, start: float, end: float) -> State:
        """Return y at `end` of dy/dt = rates(t, y), from y = `state` at `start`; `end` may be the earlier.

        Raises IntegrationError where steps would have to be shorter than rounding allows.
        """
        return _chosen(rates, state, start, end, self) if self.adaptive else _equal(rates, state, start, end, self)


def _equal(rates: Rates, state: State, start: float, end: float, how: Solver) -> State:
    rule, h = TABLEAUS[how.method], (end - start) / how.steps
    for step in range(how.steps):
        slopes: list[State] = []
        for row in rule.a:
            t = state[0].new_full((), start + (step + sum(row)) * h)
            slopes.append(rates(t, _moved(state, slopes, row, h)))
        state = _moved(state, slopes, rule.b, h)
    return state


def _moved(state: State, slopes: Sequence[State], weights: Sequence[float], h: float) -> State:
    for slope, weight in zip(slopes, weights, strict=True):
        if weight:
            state = tuple(y + weight * h * k for y, k in zip(state, slope, strict=True))
    return state


def _chosen(rates: Rates, state: State, start: float, end: float, how: Solver) -> State:
    if not len(state[0]):
        return state
    times = state[0].new_tensor([start, end])
    own = {"norm": _worst_row, "step_t": times}  # so that the end is a step, not interpolated at a lower order
    try:
        found = _odeint()(rates, state, times, rtol=how.tolerance, atol=how.tolerance, method=how.method, options=own)
    except AssertionError as error:
        raise IntegrationError(
            f"{how.method} cannot reach the tolerance {how.tolerance:g} ({error}): the field is too steep, or no longer"
            f" finite, for {state[0].dtype}"
        ) from error
    return tuple(values[-1] for values in found)


def _worst_row(parts: State) -> Tensor:
    """Return the largest root mean square of a row, so that the others do not dilute its error."""
    return torch.stack([part.flatten(1).square().mean(1).max() for part in map(_wide, parts)]).max().sqrt()


def _wide(part: Tensor) -> Tensor:
    return part.reshape(len(part), -1)


def _odeint() -> Callable[..., State]:
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise UsageError(
            "solvers that choose their steps need torchdiffeq, which is not installed (pip install torchdiffeq);"
            f" {', '.join(TABLEAUS)} do not"
        ) from error
    return odeint

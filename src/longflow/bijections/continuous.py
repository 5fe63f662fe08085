"""The continuous flow: a bijection that is the solution of a differential equation."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import isfinite
from typing import Any, cast

import torch
from torch import Tensor, nn

from longflow.bijections.bijection import Example, Step, no_log_det
from longflow.bijections.estimated import EXACT_DIMS, Estimated, outside_inference
from longflow.bijections.series import PROBES, Probe, jacobian
from longflow.bijections.solver import Rates, Solver, State
from longflow.errors import UsageError, choose
from longflow.nets.field import ConcatSquash
from longflow.nets.lipschitz import Pull
from longflow.values import log_dets_wanted

TRACED = 8
"""Moments on the way that are shown of a solver which chooses its steps."""

Field = Callable[[Tensor], Tensor]


class Continuous(Estimated):
    """z = x(T) where dx/dt = v(x, t; context) and x(0) = x: time runs from data, at 0, to latent, at T = `end`.

        log|det ∂z/∂x| = ∫₀ᵀ tr ∂v/∂x dt   (Chen, Rubanova, Bettencourt & Duvenaud 2018, theorem 1)

    Any smooth field v will do, and the inverse is the way back. `field(x, t, context)` takes x, (B, ...), and the time
    of each row, (B,), and returns v, of the shape of x; rows must not meet in it.

    The trace is exact, by `dims` products with the Jacobian, for events of at most `exact_dims` numbers in evaluation
    and of at most 3 in training; else it is the mean of εᵀ(∂v/∂x)ε over `probes` ε of independent entries of mean 0 and
    variance 1 (FFJORD: Grathwohl et al. 2019, section 3.1). They are drawn once a call and stay the same along the way:
    the equation that is solved is then a smooth one, and the log-determinant unbiased.

    Both directions are solved in steps (`training` and `evaluation` say how), so that each undoes the other, and the
    log-determinant is that of the map, to the error of the steps: of order steps⁻⁴ for rk4. Gradients are through the
    steps (discretise, then optimise): exactly those of the values, at a memory in proportion to the steps.
    """

    discretised = True

    def __init__(
        self,
        field: nn.Module,
        dims: int,
        *,
        training: Solver = Solver(),  # noqa: B008
        evaluation: Solver = Solver(steps=16),  # noqa: B008
        probes: int = 1,
        probe: str | Probe = "rademacher",
        exact_dims: int = EXACT_DIMS,
        end: float = 1.0,
    ) -> None:
        super().__init__()
        if not (end > 0 and isfinite(end)):
            raise UsageError(f"a continuous flow expects an end > 0 of its time; {end} came")
        if probes < 1:
            raise UsageError(f"the trace of a continuous flow expects probes >= 1; {probes} came")
        if isinstance(probe, str):
            choose("probe", probe, PROBES)
        self.field, self.dims, self.exact_dims = field, dims, exact_dims
        self.solver, self.evaluation = training, evaluation
        self.probes, self.probe, self.end = probes, probe, end

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._integrated(x, context, 0.0, self.end)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._integrated(z, context, self.end, 0.0)

    def velocity(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        """Return v(x, t; context), of the shape of x, at the time t of each row, (B,), in the type of x."""
        own = next((p.dtype for p in self.field.parameters()), x.dtype)
        return self.field(x.to(own), t.to(own), context).to(x.dtype)

    def trace(self, x: Tensor, context: Tensor | None = None) -> Iterator[tuple[str, Tensor]]:
        how = self.solver if self.training else self.evaluation
        parts = TRACED if how.adaptive else how.steps
        times = [self.end * k / parts for k in range(parts + 1)]
        for start, end in itertools.pairwise(times):
            (x,) = replace(how, steps=1).integrate(self._velocities(context), (x,), start, end)
            yield f"t = {end:.3g}", x

    def _integrated(self, x: Tensor, context: Tensor | None, start: float, end: float) -> tuple[Tensor, Tensor]:
        solver = self.solver if self.training else self.evaluation
        if not log_dets_wanted():
            return solver.integrate(self._velocities(context), (x,), start, end)[0], no_log_det(x)

        def step(x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
            y, log_det = solver.integrate(self._with_trace(x, context), (x, no_log_det(x)), start, end)
            return y, log_det

        return outside_inference(cast(Step, step), x, context)

    def _velocities(self, context: Tensor | None) -> Rates:
        def rates(t: Tensor, state: State) -> State:
            (x,) = state
            return (self.velocity(x, t.expand(len(x)), context),)

        return rates

    def _with_trace(self, like: Tensor, context: Tensor | None) -> Rates:
        noise = self._drawn(like.detach()) if self.by_probes else None

        def rates(t: Tensor, state: State) -> State:
            x, _ = state

            def at(point: Tensor) -> Tensor:
                return self.velocity(point, t.expand(len(point)), context)

            return exact_trace(at, x) if noise is None else hutchinson(at, x, noise)

        return rates

    def _drawn(self, like: Tensor) -> list[Tensor]:
        draw = PROBES[self.probe] if isinstance(self.probe, str) else self.probe
        return [draw(like) for _ in range(self.probes)]

    def account(self) -> dict[str, Any]:
        how = self.evaluation
        solved = {"tolerance": how.tolerance} if how.adaptive else {"steps": how.steps, "evaluations": how.evaluations}
        probe = self.probe if isinstance(self.probe, str) else "own"
        drawn = {"probe": probe, "probes": self.probes} if self.estimates else {}
        return {"exact": not self.estimates, "solver": how.method, **solved, **drawn}

    def extra_repr(self) -> str:
        return f"dims={self.dims}, {self.evaluation.method}, exact_dims={self.exact_dims}"

    @classmethod
    def examples(cls) -> Iterator[Example]:
        few, end = Solver(steps=4), 0.25
        yield Example(cls(ConcatSquash(3, width=3, depth=1), 3, evaluation=few, end=end).eval(), (3,))
        field = ConcatSquash(2, width=3, depth=1, context=2, activation=nn.SiLU)
        yield Example(cls(field, 2, evaluation=few, end=end).eval(), (1, 2, 1), (2,))


def exact_trace(field: Field, x: Tensor) -> State:
    """Return v(x), of the shape of x, and tr ∂v/∂x, (B,), by as many products with the Jacobian as x has numbers."""
    value, jacobians = jacobian(field, x)
    return value, jacobians.diagonal(dim1=1, dim2=2).sum(1)


def hutchinson(field: Field, x: Tensor, probes: Sequence[Tensor]) -> State:
    """Return v(x) and the mean of εᵀ(∂v/∂x)ε over probes of the shape of x: (B,) (Hutchinson 1990)."""
    value, pull = cast("tuple[Tensor, Pull]", torch.func.vjp(field, x))
    return value, torch.stack([(pull(e)[0] * e).flatten(1).sum(1) for e in probes]).mean(0)

"""Flow matching (Lipman, Chen, Ben-Hamu, Nickel & Le, ICLR 2023), or rectified flow (Liu, Gong & Liu, ICLR 2023)."""

from math import prod
from typing import Literal

from longflow.bijections import Continuous, Solver
from longflow.bijections.solver import Method
from longflow.errors import choose
from longflow.families import MatchedFlow
from longflow.models.checks import at_least
from longflow.models.ffjord import ACTIVATIONS
from longflow.nets import ConcatSquash


def fm(
    shape: tuple[int, ...],
    *,
    width: int = 64,
    depth: int = 3,
    activation: Literal["tanh", "softplus", "silu"] = "silu",
    frequencies: int = 4,
    solver: Method = "rk4",
    evaluation_steps: int = 16,
    tolerance: float = 1e-5,
    probes: int = 1,
    probe: Literal["rademacher", "gaussian"] = "rademacher",
    exact_dims: int = 64,
    context: int = 0,
) -> MatchedFlow:
    """A continuous flow whose field is regressed on straight paths from data to noise (`FlowMatching`).

    No equation is solved in training. Afterwards it is the density of any continuous flow: time runs from data, at 0,
    to the standard normal, at 1, and the log-determinant is exact for events of at most `exact_dims` numbers, else an
    estimate, to the solver's error. It is validated by its own objective, as a likelihood would cost more than the
    training between.

    Args:
        shape: Shape of an event, (D,) or any other, which is seen as a vector.
        width: Units in a hidden layer of the field.
        depth: Hidden layers of the field.
        activation: Between the layers of the field.
        frequencies: Sines and cosines of time that the field sees beside time itself.
        solver: Rule of equal steps (euler, midpoint, rk4), or one that chooses its own (bosh3, dopri5, dopri8).
        evaluation_steps: Equal steps, in sampling too.
        tolerance: Of a solver that chooses its steps.
        probes: Probes that an estimate averages.
        probe: Distribution of their entries.
        exact_dims: Numbers of an event up to which the trace is exact.
        context: Features of a context vector that the field sees; 0 for none.
    """
    dims = prod(shape)
    at_least("fm", 1, width=width, depth=depth, evaluation_steps=evaluation_steps, probes=probes)
    at_least("fm", 0, frequencies=frequencies, exact_dims=exact_dims, context=context)
    between = ACTIVATIONS[choose("activation", activation, ACTIVATIONS)]
    field = ConcatSquash(dims, width=width, depth=depth, context=context, activation=between, frequencies=frequencies)
    how = Solver(solver, evaluation_steps, tolerance)
    continuous = Continuous(
        field, dims, training=how, evaluation=how, probes=probes, probe=probe, exact_dims=exact_dims
    )
    return MatchedFlow(continuous, shape, (context,) if context else None)

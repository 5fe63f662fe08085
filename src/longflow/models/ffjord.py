"""FFJORD: free-form continuous dynamics (Grathwohl, Chen, Bettencourt, Sutskever & Duvenaud, ICLR 2019)."""

from collections.abc import Callable
from math import prod
from typing import Literal

from torch import nn

from longflow.bijections import Chain, Continuous, Solver
from longflow.bijections.solver import Method
from longflow.distributions import Flow, StandardNormal
from longflow.errors import choose
from longflow.models.checks import at_least
from longflow.nets import ConcatSquash

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"tanh": nn.Tanh, "softplus": nn.Softplus, "silu": nn.SiLU}
"""Smooth ones: log-determinants are of the slopes of the field, and the error of a solver of its derivatives."""


def ffjord(
    shape: tuple[int, ...],
    *,
    blocks: int = 1,
    width: int = 64,
    depth: int = 3,
    activation: Literal["tanh", "softplus", "silu"] = "tanh",
    solver: Method = "rk4",
    solver_steps: int = 8,
    evaluation_steps: int = 16,
    tolerance: float = 1e-5,
    probes: int = 1,
    probe: Literal["rademacher", "gaussian"] = "rademacher",
    exact_dims: int = 64,
    context: int = 0,
) -> Flow:
    """Continuous flows of fields that are gated by time, trained by their likelihood; the base is the standard normal.

    Time runs from data to latent. The log-determinant is exact for events of at most 3 numbers in training and of at
    most `exact_dims` in evaluation, else an estimate (Hutchinson's) with noise that stays the same along a way. Both
    hold to the solver's error, which `evaluate` measures by halving its steps.

    Args:
        shape: Shape of an event, (D,) or any other, which is seen as a vector.
        blocks: Fields, one after the other.
        width: Units in a hidden layer of a field.
        depth: Hidden layers of a field.
        activation: Between the layers of a field.
        solver: Rule of equal steps (euler, midpoint, rk4), or one that chooses its own (bosh3, dopri5, dopri8).
        solver_steps: Equal steps of a block in training.
        evaluation_steps: Equal steps of a block in evaluation, in sampling too.
        tolerance: Of a solver that chooses its steps.
        probes: Probes that an estimate averages.
        probe: Distribution of their entries.
        exact_dims: Numbers of an event up to which evaluation has the trace exactly.
        context: Features of a context vector that the fields see; 0 for none.
    """
    dims = prod(shape)
    at_least("ffjord", 1, blocks=blocks, width=width, depth=depth, probes=probes)
    at_least("ffjord", 1, solver_steps=solver_steps, evaluation_steps=evaluation_steps)
    at_least("ffjord", 0, exact_dims=exact_dims, context=context)
    between = ACTIVATIONS[choose("activation", activation, ACTIVATIONS)]

    def block() -> Continuous:
        return Continuous(
            ConcatSquash(dims, width=width, depth=depth, context=context, activation=between),
            dims,
            training=Solver(solver, solver_steps, tolerance),
            evaluation=Solver(solver, evaluation_steps, tolerance),
            probes=probes,
            probe=probe,
            exact_dims=exact_dims,
        )

    chain = Chain(*(block() for _ in range(blocks)))
    return Flow(chain, StandardNormal(shape), (context,) if context else None)

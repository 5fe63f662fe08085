"""How a chain remembers what its gradient needs: orthogonal to what it computes.

- full: keep every activation (autograd's default).
- checkpoint: keep each step's input, and compute the rest of it again on the way back. Exact.
- reversible: keep the last value only, and walk back through the inverses; memory does not grow with the number of
  steps (Gomez et al. 2017, for flows with log-determinants). For exact, deterministic bijections (no dropout), within
  the rounding of their round trip, which a monitor watches.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from longflow.bijections.bijection import Step, no_log_det

Memory = Literal["full", "checkpoint", "reversible"]
Trunk = Literal["float32", "float64"]

TRUNKS = {"float32": torch.float32, "float64": torch.float64}
"""The narrowest type in which a chain carries values from part to part."""

DRIFT = 1e-2
"""Relative error of the reconstructed input of a chain at which the reversible mode warns."""


@dataclass(frozen=True, eq=False)
class Walk:
    """One way through a chain: each step, the step that undoes it, and the part whose parameters both have."""

    steps: Sequence[Step]
    undos: Sequence[Step]
    parts: Sequence[nn.Module]


def full(walk: Walk, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Take the steps; log-determinants add up."""
    log_det = no_log_det(x)
    for step in walk.steps:
        x, change = step(x, context)
        log_det = log_det + change
    return x, log_det


def checkpointed(walk: Walk, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Take the steps, each computed again on the way back."""
    again = [_again(step) for step in walk.steps]
    return full(Walk(again, walk.undos, walk.parts), x, context)


def reversible(walk: Walk, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Take the steps, keeping the last value only."""
    parameters = [p for part in walk.parts for p in part.parameters()]
    return _Reversible.apply(walk, x, context, *parameters)


MEMORIES: dict[str, Callable[[Walk, Tensor, Tensor | None], tuple[Tensor, Tensor]]] = {
    "full": full,
    "checkpoint": checkpointed,
    "reversible": reversible,
}


def _again(step: Step) -> Step:
    return lambda x, context: checkpoint(step, x, context, use_reentrant=False)


class _Reversible(torch.autograd.Function):
    @staticmethod
    def forward(walk: Walk, x: Tensor, context: Tensor | None, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        return full(walk, x, context)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        walk, x, context, *_ = inputs
        ctx.walk = walk
        ctx.save_for_backward(output[0], x[:1].detach().clone(), context)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_z: Tensor, grad_log_det: Tensor) -> tuple[Any, ...]:
        value, first_row, context = ctx.saved_tensors
        walk: Walk = ctx.walk
        grad_context = None if context is None else torch.zeros_like(context)
        grads: list[list[Tensor | None]] = []
        for step, undo, part in zip(*map(reversed, (walk.steps, walk.undos, walk.parts)), strict=True):
            value = undo(value, context)[0]
            grad_z, grad_c, own = _through(step, value, context, list(part.parameters()), grad_z, grad_log_det)
            if grad_context is not None and grad_c is not None:
                grad_context += grad_c
            grads.append(own)
        _watch(value[:1], first_row)
        return None, grad_z, grad_context, *(g for own in reversed(grads) for g in own)


def _through(
    step: Step,
    value: Tensor,
    context: Tensor | None,
    parameters: Sequence[nn.Parameter],
    grad_z: Tensor,
    grad_log_det: Tensor,
) -> tuple[Tensor, Tensor | None, list[Tensor | None]]:
    """Return the gradients of one step at its input: to the input, to the context, to its parameters."""
    with torch.enable_grad():
        x = value.detach().requires_grad_()
        c = None if context is None else context.detach().requires_grad_(context.is_floating_point())
        pairs = zip(step(x, c), (grad_z, grad_log_det), strict=True)
        outputs, given = zip(*[(out, grad) for out, grad in pairs if out.requires_grad], strict=True)
        wanted = [x, *([] if c is None else [c]), *(p for p in parameters if p.requires_grad)]
        found = iter(torch.autograd.grad(outputs, wanted, given, allow_unused=True))
    to_x = next(found)
    to_c = None if c is None else next(found)
    return (
        torch.zeros_like(value) if to_x is None else to_x,
        to_c,
        [next(found) if p.requires_grad else None for p in parameters],
    )


def _watch(recovered: Tensor, original: Tensor) -> None:
    drift = (recovered - original).abs().max() / original.abs().max().clamp_min(1e-12)
    if not drift <= DRIFT:
        warnings.warn(
            f"reversible memory: the input came back with a relative error of {drift.item():.1g};"
            " gradients are off, use memory='checkpoint'",
            stacklevel=2,
        )

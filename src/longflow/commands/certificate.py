"""The Lipschitz certificate of residual blocks: what their norms are, what that guarantees, and what is measured."""

from typing import Any, cast

import torch
from torch import Tensor
from torch.func import vjp

from longflow.bijections import Residual
from longflow.bijections.fixed_point import FixedPoint
from longflow.distributions import Flow
from longflow.errors import InversionError
from longflow.nets.lipschitz import Pull
from longflow.values import values_only

POWER_ITERATIONS = 30
TOLERANCE = 1e-6


def certificate(flow: Flow, x: Tensor, context: Tensor | None = None) -> dict[str, Any] | None:
    """Return what guarantees that each residual block of a flow is invertible; None for a flow without.

    `largest_layer_norm` and `largest_slope_bound` (of a branch, from its layers' norms) are computed in float64 and
    are bounds; `norms_exact` says whether they are the norms themselves. `largest_measured_slope` is that of ∂g/∂x at
    the events x, by power iteration, from below. `iterations` are those of the inverse to an error of 1e-6, in
    the units of each block's input. `certified` says that every slope bound is below 1; None that this is not known,
    as a bound that is not the norm itself is above.
    """
    blocks = {name: m for name, m in flow.named_modules() if isinstance(m, Residual)}
    if not blocks:
        return None
    inputs = _inputs(flow, blocks, x, context)
    rows = [_of_block(block, inputs[name]) for name, block in blocks.items()]
    return {
        "blocks": len(rows),
        "largest_layer_norm": max(row["layer"] for row in rows),
        "largest_slope_bound": max(row["bound"] for row in rows),
        "norms_exact": all(row["exact"] for row in rows),
        "largest_measured_slope": max(row["slope"] for row in rows),
        "iterations": None if any(row["lost"] for row in rows) else max(row["iterations"] for row in rows),
        "mean_iterations": sum(row["iterations"] for row in rows) / len(rows),
        "certified": _verdict(rows),
    }


def _verdict(rows: list[dict[str, Any]]) -> bool | None:
    """Return whether every branch contracts; None where that is not known, as a bound of 1 or more is not the norm."""
    if any((row["bound"] >= 1 and row["exact"]) or row["slope"] >= 1 or row["lost"] for row in rows):
        return False
    return True if all(row["bound"] < 1 for row in rows) else None


def _inputs(
    flow: Flow, blocks: dict[str, Residual], x: Tensor, context: Tensor | None
) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Return what reaches each block on the way of x to its latent."""
    found: dict[str, tuple[Tensor, Tensor | None]] = {}

    def keep(name: str) -> Any:
        return lambda module, given: found.update({name: (given[0], given[1] if len(given) > 1 else None)})

    hooks = [block.register_forward_pre_hook(keep(name)) for name, block in blocks.items()]
    try:
        with torch.no_grad():
            flow.encode(x, context)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _of_block(block: Residual, given: tuple[Tensor, Tensor | None]) -> dict[str, Any]:
    x, context = given
    layers = [layer.norm_bound() for layer in block.layers()]
    bound = block.branch.slope_of([norm for norm, _ in layers])
    with torch.no_grad(), values_only():
        z = block(x, context)[0]
        lost, iterations = False, block.inversion.most
        try:
            iterations = int(block.root(z, context, FixedPoint(TOLERANCE, block.inversion.most))[1].max())
        except InversionError:
            lost = True
    return {
        "layer": max(norm for norm, _ in layers),
        "bound": bound,
        "exact": all(exact for _, exact in layers),
        "slope": _measured(block, x, context),
        "iterations": iterations,
        "lost": lost,
    }


def _measured(block: Residual, x: Tensor, context: Tensor | None) -> float:
    """Return the largest ‖∂g/∂x‖ over rows, by power iteration on JᵀJ."""

    def branch(point: Tensor) -> Tensor:
        return block.branch(point, context)

    with torch.no_grad():
        pull = cast("tuple[Tensor, Pull]", vjp(branch, x))[1]
        push = cast("tuple[Tensor, Pull]", vjp(lambda u: pull(u)[0], torch.zeros_like(x)))[1]
        v = torch.randn_like(x)
        for _ in range(POWER_ITERATIONS):
            v = v / _wide(v)
            (pushed,) = push(v)
            v = pull(pushed)[0]
        return float(torch.linalg.vector_norm(pushed.flatten(1), dim=1).max())


def _wide(v: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(v.flatten(1), dim=1).clamp_min(torch.finfo(v.dtype).tiny)
    return norm.reshape(-1, *[1] * (v.dim() - 1))

"""What is watched in an autoencoder: whether its codes say anything, and whether its deviations are at their floor."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from longflow.commands.rows import pairs_of
from longflow.data import Events
from longflow.distributions import EqualNormal, LatentModel, Normal
from longflow.families.autoencoder import Autoencoder
from longflow.objectives import Objective
from longflow.seeds import fixed_draws

ACTIVE_KL = 0.01
"""Mean KL of a number of the code, in nats, from which it counts as used."""

FEW = 0.01
"""Share of deviations at their floor up to which nothing is said."""

ROWS_FOR_FLOORS = 100
"""Rows whose deviations are looked at: a pass of its own through encoder and decoder."""

LITTLE = 0.1
"""Mean KL of all of a code, in nats, below which it says nothing: the posterior has collapsed onto the prior."""


def parts_by_row(model: LatentModel, rows: np.ndarray | Events, seed: int) -> dict[str, torch.Tensor]:
    """Return what a model's score is made of, by name, (N,) or (N, groups), from one draw for each row; see `parts`."""
    with fixed_draws(seed), torch.inference_mode():
        found = [model.parts(x, context) for x, context in pairs_of(model, rows)]
    return {name: torch.cat([part[name] for part in found]).double().cpu() for name in found[0]}


def summary(parts: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return the means over rows: of an autoencoder reconstruction and KL, in nats; of a manifold the distance from it.

    Where KL is known for each number of the code, or group of them, `used` counts those of more than 0.01 nats, and
    `groups` all.
    """
    told: dict[str, Any] = {name: float(value.sum()) / len(value) for name, value in parts.items()}
    kl = parts["kl"].mean(0) if "kl" in parts else torch.zeros(0)
    return {**told, "used": int((kl > ACTIVE_KL).sum()), "groups": len(kl)} if len(kl) > 1 else told


def bound_of(parts: Mapping[str, torch.Tensor]) -> np.ndarray:
    """Return an autoencoder's bound of each row, (N,), in nats, from the parts of it: what `log_prob` would draw."""
    return (parts["reconstruction"] - parts["kl"].sum(1)).numpy()


def loss_of(objective: Objective, model: LatentModel, rows: np.ndarray | Events, seed: int) -> float:
    """Return the mean of an objective of one turn over rows, at the end of its schedule."""
    total = 0.0
    with fixed_draws(seed), torch.no_grad():
        for x, context in pairs_of(model, rows):
            ((_, loss),) = objective(model, x, context, 1.0)
            total += len(x) * loss.item()
    return total / len(rows)


def at_floor(model: LatentModel, rows: np.ndarray | Events) -> float:
    """Return the share of the deviations of some rows that are at their floor; 1 where one that all share is."""
    if any(m.floored for m in model.modules() if isinstance(m, EqualNormal)):
        return 1.0
    density = model.density
    if not isinstance(density, Autoencoder) or not any(isinstance(m, Normal) and m.floor for m in density.modules()):
        return 0.0
    some = Events.of(rows)[:ROWS_FOR_FLOORS]
    with fixed_draws(0), torch.inference_mode():
        shares = [density.at_floor(model.encode(x, context)) for x, context in pairs_of(model, some)]
    return float(torch.cat(shares).mean())


def warnings_of(parts: Mapping[str, Any], floored: float) -> list[str]:
    """Return what a user should know while an autoencoder trains, a line each."""
    told = []
    if "kl" in parts and parts["kl"] < LITTLE:
        told.append(
            f"the posterior has collapsed onto the prior: its codes carry {parts['kl']:.2g} nats, and the decoder"
            " ignores them (--kl-warmup, --free-bits, a weaker decoder or bnvae help)"
        )
    if floored == 1:
        told.append("a learned deviation is at its floor: the likelihood is what the floor allows (see --floor)")
    elif floored > FEW:
        told.append(
            f"deviations are at their floor: {floored:.0%} of them, where the likelihood is what the floor allows (see"
            " --floor)"
        )
    return told

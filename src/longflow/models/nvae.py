"""NVAE (Vahdat & Kautz, NeurIPS 2020), small."""

from typing import Any, Literal

from torch import nn

from longflow.errors import UsageError
from longflow.families import NVAE
from longflow.models.autoencoder import Observed, check, observed, scaled
from longflow.models.checks import at_least
from longflow.nets.nvae import BottomUp, Plan, TopDown

PRESETS: dict[str, dict[str, Any]] = {
    "mnist": {
        "scales": 2,
        "groups": 10,
        "group_divisor": 2,
        "latents": 20,
        "maps": 32,
        "halvings": 2,
        "cells": 2,
        "outer_cells": 3,
        "likelihood": "bernoulli",
        "norm": "batch",
    },
    "digits": {"scales": 2, "groups": 2, "latents": 4, "maps": 24, "growth": 1, "likelihood": "bernoulli"},
}


def nvae(
    shape: tuple[int, ...],
    levels: int | None = None,
    *,
    scales: int = 2,
    groups: int = 2,
    group_divisor: int = 1,
    latents: int = 4,
    maps: int = 24,
    growth: int = 2,
    halvings: int = 1,
    cells: int = 1,
    outer_cells: int = 1,
    norm: Literal["act", "batch"] = "act",
    likelihood: Observed = "normal",
    scale: float = 0.1,
    floor: float = 1e-3,
    components: int = 10,
) -> NVAE:
    """Groups of latents one after the other, from coarse to fine, their priors and posteriors in one residual tower.

    A small NVAE: residual cells, squeeze-excitation, posteriors relative to priors and closed-form KL are the paper's;
    its flows in the posterior and its weight normalisation are left out, and its spectral regularisation, batch-norm
    regularisation and KL balancing are the objective's (`--regularisation`, `--balancing`, `--kl-warmup`). Pictures
    whose sides do not divide by 2^(halvings + scales - 1) get a frame of noughts, which the decoder's are cut of, as
    the paper's 28×28 digits do (to 32×32).

    By default scales are learned (ActNorm) and rows do not meet. The paper's batch statistics (`--norm batch`) are
    taken from training rows, under posteriors, for sampling too, where the paper takes them anew at each temperature;
    small models did worse with them. Without balancing the coarse groups die.

    The preset "mnist" has the sizes of the paper's MNIST model (its code's flags); its training, which these presets
    cannot hold, took 400 epochs with a batch of 400, Adamax of 1e-2, and `--regularisation 0.01`.

    Args:
        shape: Shape of an event, (C, H, W).
        levels: Levels of the data; None for continuous ones.
        scales: Scales of the latents, each coarser one of half the sides.
        groups: Groups of latents of the finest scale.
        group_divisor: What that number is divided by from each scale to the next coarser one (at least 1 stays).
        latents: Maps of latents of a group.
        maps: Maps at the size of the picture.
        growth: Factor by which the maps grow whenever the sides halve.
        halvings: Halvings between the picture and the finest scale.
        cells: Residual cells of a group, in the encoder and in the decoder.
        outer_cells: Residual cells at each size between the picture and the finest scale.
        norm: Normalisation: learned scales that start from data, or the batch's statistics (the paper's).
        likelihood: normal (one σ for all pixels), normal-varying (the decoder says each σ), bernoulli (2 levels), grey,
            categorical, or logistic (a discretised mixture).
        scale: σ of the normal likelihood at the start, in the units of the preprocessed data.
        floor: Least σ of the normal likelihoods.
        components: Components of a mixture of logistics.
    """
    counts = {"scales": scales, "groups": groups, "group_divisor": group_divisor, "latents": latents}
    check(
        "nvae", shape, **counts, maps=maps, growth=growth, cells=cells, outer_cells=outer_cells, components=components
    )
    at_least("nvae", 0, halvings=halvings)
    plan = Plan(
        maps=maps,
        growth=growth,
        groups=tuple(max(1, groups // group_divisor**k) for k in range(scales)),
        latents=latents,
        halvings=halvings,
        cells=cells,
        outer_cells=outer_cells,
        norm=norm,
    )
    if len(shape) != 3 or min(shape[1:]) < plan.unit:
        raise UsageError(
            f"nvae expects pictures (C, H, W), sides of at least 2^(halvings + scales - 1) = {plan.unit}; {shape} came"
        )
    p_x = observed("nvae", likelihood, shape, levels, scale=scale, floor=floor, components=components)
    frame, space = _frame(shape[1:], plan.unit)
    encoder = scaled(BottomUp(shape[0], plan), p_x)
    decoder = TopDown(p_x.context_shape[0], plan, space)
    crop = nn.ZeroPad2d((-frame[0], -frame[1], -frame[2], -frame[3]))
    return NVAE(nn.Sequential(nn.ZeroPad2d(frame), encoder), decoder, crop, p_x)


def _frame(space: tuple[int, ...], unit: int) -> tuple[tuple[int, int, int, int], tuple[int, ...]]:
    """Return the frame (left, right, top, bottom) that makes sides multiples of the unit, and those sides."""
    top, left = (-side % unit // 2 for side in space)
    bottom, right = (-side % unit - (-side % unit) // 2 for side in space)
    return (left, right, top, bottom), (space[0] + top + bottom, space[1] + left + right)

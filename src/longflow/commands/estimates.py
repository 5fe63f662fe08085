"""How a residual flow's log-determinants are estimated in evaluation, and what is told of it."""

import dataclasses
import math
from typing import Any

import numpy as np
import torch

from longflow.bijections import Residual
from longflow.distributions import LatentModel
from longflow.errors import UsageError
from longflow.units import bits_per_dim, standard_error


def use_terms(model: LatentModel, terms: int) -> None:
    """Let every residual block of a model compute so many exact terms in evaluation.

    Raises UsageError for fewer than it was built for: the report would then not be what the run asks for.
    """
    blocks = [m for m in model.modules() if isinstance(m, Residual) and m.estimates]
    if not blocks:
        raise UsageError("--terms is for models whose log-determinant is estimated; this one's is exact")
    for block in blocks:
        own = block.evaluation
        if terms < own.terms:
            raise UsageError(f"the run asks for at least {own.terms} exact terms in evaluation; {terms} came")
        block.evaluation = dataclasses.replace(own, terms=terms)


def estimation(model: LatentModel, drawn: np.ndarray) -> dict[str, Any]:
    """Return how a residual flow's log-determinant was had, from log-likelihoods (draws, N) in nats; {} for others."""
    blocks = [m for m in model.modules() if isinstance(m, Residual)]
    if not blocks:
        return {}
    if not any(block.estimates for block in blocks):
        return {"log_det": {"exact": True}}
    series = next(block.evaluation for block in blocks if block.estimates)
    means = bits_per_dim(torch.from_numpy(drawn.mean(1)), model.dims).numpy()
    bias = sum(block.evaluation.bias_bound(block.dims, block.slope) for block in blocks if block.estimates)
    return {
        "log_det": {
            "exact": False,
            "terms": series.terms,
            "roulette": series.roulette,
            "rate": series.rate,
            "probe": series.probe,
            "probes": series.probes,
            "draws": len(drawn),
            "bias_bound_bits_per_dim": bias / (model.dims * math.log(2)),
            "stderr_of_draws_bits_per_dim": standard_error(means) if len(drawn) > 1 else None,
        }
    }

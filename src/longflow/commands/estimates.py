"""How log-determinants are estimated in evaluation, and what is told of it and of a solver's steps."""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from longflow.bijections import Continuous, Estimated, Residual
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
    """Return how log-determinants that cost products with Jacobians were had, and their error; {} for other models.

    `drawn` are log-likelihoods, (draws, N), in nats. The settings are those of the first bijection that estimates.
    """
    accounts: list[dict[str, Any]] = [m.account() for m in model.modules() if isinstance(m, Estimated)]
    if not accounts:
        return {}
    estimated = [account for account in accounts if not account["exact"]]
    shown = dict((estimated or accounts)[0])
    known = all("bias_bound" in account for account in estimated)
    shown.pop("bias_bound", None)
    if not estimated:
        return {"log_det": shown}
    means = bits_per_dim(torch.from_numpy(drawn.mean(1)), model.dims).numpy()
    bias = sum(account["bias_bound"] for account in estimated) / (model.dims * math.log(2)) if known else None
    error = standard_error(means) if len(drawn) > 1 else None
    told = {"draws": len(drawn), "bias_bound_bits_per_dim": bias, "stderr_of_draws_bits_per_dim": error}
    return {"log_det": {**shown, **told}}


def solved(model: LatentModel) -> list[Continuous]:
    """Return the bijections of a model that solve a differential equation."""
    return [m for m in model.modules() if isinstance(m, Continuous)]


@contextmanager
def refined(model: LatentModel) -> Iterator[None]:
    """Let every solver of a model take twice as many steps in evaluation meanwhile, or a tenth of its tolerance."""
    own = [(m, m.evaluation) for m in solved(model)]
    try:
        for bijection, how in own:
            bijection.evaluation = how.finer()
        yield
    finally:
        for bijection, how in own:
            bijection.evaluation = how

"""How strange rows are to a run's model, beside rows of its validation split."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from longflow import anomaly
from longflow.commands.datasets import check_like, dataset_of, order_of
from longflow.commands.draw import kind_of, open_model
from longflow.commands.evaluate import log_likelihoods
from longflow.commands.rows import batches_of
from longflow.commands.simplest import background_bits
from longflow.data import Dataset
from longflow.distributions import LatentModel
from longflow.errors import UsageError
from longflow.runs import Run

Method = Literal["log-likelihood", "typicality", "ratio", "complexity", "latent"]
Score = Callable[[np.ndarray, Tensor], Tensor]
"""Of rows and their log-likelihoods in nats, how strange each is, (N,)."""

HELD_OUT = 1000


def check_methods(folder: Run, model: LatentModel, methods: Sequence[Method], background: str | None) -> None:
    """Raise UsageError for scores that a run cannot have, before anything is computed."""
    if background is not None and "ratio" not in methods:
        raise UsageError("--background is for --method ratio")
    if methods and model.context_shape:
        raise UsageError(f"--method is for densities without a context or classes; {folder} holds one given a context")
    if methods and model.likelihood == "none":
        raise UsageError(f"--method expects a likelihood of the data; {folder} holds a model without one")
    if "complexity" in methods and kind_of(folder.config()) != "picture":
        raise UsageError(f"--method complexity is for pictures of levels; {folder} holds a density of other data")


def anomaly_columns(
    folder: Run,
    model: LatentModel,
    rows: np.ndarray,
    nats: np.ndarray,
    methods: Sequence[Method],
    *,
    background: str | None,
    importance_samples: int,
    seed: int,
    device: str,
) -> dict[str, np.ndarray]:
    """Return for each method its score of each row, (N,), and `p_…`, its p-value among validation rows.

    `nats` are the rows' log-likelihoods. Scores say more for stranger rows; what is typical is told by
    at most 1,000 rows of the run's validation split, hence its data must be there.
    """
    if not methods:
        return {}
    dataset = dataset_of(folder)
    held = dataset.split("validation")[:HELD_OUT]
    held_nats = torch.from_numpy(log_likelihoods(model, held, samples=importance_samples, seed=seed))
    typical = anomaly.entropy(held_nats)
    scores: dict[Method, Score] = {
        "log-likelihood": lambda x, own: anomaly.surprise(own),
        "typicality": lambda x, own: anomaly.atypicality(own, typical),
        "ratio": lambda x, own: anomaly.likelihood_ratio(own, behind(x)),
        "complexity": lambda x, own: anomaly.excess_bits(own, x),
        "latent": lambda x, own: _misfit(model, x),
    }
    if "ratio" in methods:
        behind = background_of(folder, dataset, background, seed, device)
    columns = {}
    for method in methods:
        name = method.replace("-", "_")
        found = scores[method](rows, torch.from_numpy(nats))
        columns[name] = found.numpy()
        columns[f"p_{name}"] = anomaly.p_values(found, scores[method](held, held_nats)).numpy()
    return columns


def background_of(
    folder: Run, dataset: Dataset, background: str | None, seed: int, device: str
) -> Callable[[np.ndarray], Tensor]:
    """Return the log-likelihood of rows, (N,), in nats, under another run or the baseline of the training rows."""
    if background is None:
        return lambda rows: torch.from_numpy(-background_bits(dataset, rows) * dataset.dims * math.log(2))
    other, model = open_model(background, device)
    check_like(other, dataset.shape, dataset.levels, dataset.columns, str(folder))
    order = order_of(other, dataset.columns)
    return lambda rows: torch.from_numpy(log_likelihoods(model, rows if order is None else rows[:, order], seed=seed))


def _misfit(model: LatentModel, rows: np.ndarray) -> Tensor:
    with torch.inference_mode():
        return torch.cat([anomaly.latent_misfit(model, x).cpu() for x in batches_of(model, rows)])

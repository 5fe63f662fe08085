"""How strange rows are to a run's model, beside rows of its validation split."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from longflow import anomaly
from longflow.baselines import gaussian_bits, histogram_bits
from longflow.commands.draw import open_model
from longflow.commands.evaluate import check_like, dataset_of, log_likelihoods
from longflow.commands.rows import batches_of
from longflow.data import Dataset
from longflow.distributions import LatentModel
from longflow.errors import UsageError
from longflow.runs import Run

Method = Literal["log-likelihood", "typicality", "ratio", "complexity", "latent"]
HELD_OUT = 1000


@dataclass(frozen=True)
class Yardstick:
    """What rows are measured by: a model, its typical entropy in nats, the run's data, and a background's nats."""

    model: LatentModel
    typical: float
    dataset: Dataset
    background: Callable[[np.ndarray], Tensor]


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
    if model.likelihood == "none" or model.context_shape:
        raise UsageError("--method expects a likelihood of the data, without a context; this run's model has none")
    dataset = dataset_of(folder)
    held = dataset.split("validation")[:HELD_OUT]
    held_nats = log_likelihoods(model, held, samples=importance_samples, seed=seed)
    behind = background_of(folder, dataset, background, seed, device)
    yardstick = Yardstick(model, anomaly.entropy(torch.from_numpy(held_nats)), dataset, behind)
    columns = {}
    for method in methods:
        score, name = SCORES[method], method.replace("-", "_")
        found = score(yardstick, rows, torch.from_numpy(nats))
        columns[name] = found.numpy()
        columns[f"p_{name}"] = anomaly.p_values(found, score(yardstick, held, torch.from_numpy(held_nats))).numpy()
    return columns


def background_of(
    folder: Run, dataset: Dataset, background: str | None, seed: int, device: str
) -> Callable[[np.ndarray], Tensor]:
    """Return the log-likelihood of rows, (N,), in nats, under another run or the baseline of the training rows."""
    train = dataset.split("train")
    if background is None and dataset.levels is None:
        return lambda rows: _nats(gaussian_bits(train, rows), dataset.dims)
    if background is None:
        return lambda rows: _nats(histogram_bits(train, rows, dataset.levels or 0), dataset.dims)
    other, model = open_model(background, device)
    check_like(other, dataset.shape, dataset.levels, dataset.columns, str(folder))
    return lambda rows: torch.from_numpy(log_likelihoods(model, rows, seed=seed))


def _nats(bits: np.ndarray, dims: int) -> Tensor:
    return torch.from_numpy(-bits * dims * math.log(2))


def _surprise(by: Yardstick, rows: np.ndarray, nats: Tensor) -> Tensor:
    return anomaly.surprise(nats)


def _atypicality(by: Yardstick, rows: np.ndarray, nats: Tensor) -> Tensor:
    return anomaly.atypicality(nats, by.typical)


def _ratio(by: Yardstick, rows: np.ndarray, nats: Tensor) -> Tensor:
    return anomaly.likelihood_ratio(nats, by.background(rows))


def _excess(by: Yardstick, rows: np.ndarray, nats: Tensor) -> Tensor:
    return anomaly.excess_bits(nats, rows)


def _misfit(by: Yardstick, rows: np.ndarray, nats: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.cat([anomaly.latent_misfit(by.model, x).cpu() for x in batches_of(by.model, rows)])


SCORES: dict[Method, Callable[[Yardstick, np.ndarray, Tensor], Tensor]] = {
    "log-likelihood": _surprise,
    "typicality": _atypicality,
    "ratio": _ratio,
    "complexity": _excess,
    "latent": _misfit,
}
"""Of rows and their log-likelihoods in nats, how strange each is, (N,)."""

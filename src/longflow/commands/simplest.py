"""Models that learn nothing but moments or counts of the training rows, by the convention of a flow's likelihood."""

import numpy as np

from longflow.baselines import UNIFORM_VARIANCE, gaussian_bits, histogram_bits
from longflow.data import Dataset
from longflow.errors import UsageError
from longflow.units import standard_error

GAUSSIAN_DIMS = 3072
"""Largest number of dimensions for which the full-covariance Gaussian is fitted."""

LARGEST_CONDITION = 1e10
"""Of a correlation matrix; beyond it the columns are collinear to the rounding of the stored float32."""


def baselines(dataset: Dataset) -> dict[str, dict[str, float | None]]:
    """Return test bits/dim and standard error of models without learning, in the units of the flow's."""
    train, test, noise = dataset.split("train"), dataset.split("test"), noise_of(dataset)
    found: dict[str, np.ndarray] = {}
    if has_density(train, noise):
        found["Gaussian"] = gaussian_bits(train, test, noise_variance=noise)
    if dataset.levels is not None:
        found["histogram per dimension"] = histogram_bits(train, test, dataset.levels)
    if dataset.contexts is not None and dataset.levels is None:
        found |= _conditional_gaussian(dataset)
    return {
        name: {"bits_per_dim": float(bits.mean()), "stderr_bits_per_dim": standard_error(bits)}
        for name, bits in found.items()
    }


def background_bits(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """Return bits/dim of rows, (N,), under a histogram of each number, for levels, or else under one Gaussian.

    Raises UsageError where the Gaussian has no density.
    """
    train, noise = dataset.split("train"), noise_of(dataset)
    if dataset.levels is not None:
        return histogram_bits(train, rows, dataset.levels)
    if not has_density(train, noise):
        raise UsageError(
            f"one Gaussian of {dataset.name} has no density: its columns are collinear, or too many; use --background"
        )
    return gaussian_bits(train, rows, noise_variance=noise)


def noise_of(dataset: Dataset) -> np.ndarray:
    """Return the variance of the dequantisation of each number of an event, (D,)."""
    whole = [dataset.levels is not None] * dataset.dims
    if dataset.supports is not None:
        whole = [bool(support and support.whole) for support in dataset.supports]
    return UNIFORM_VARIANCE * np.array(whole, np.float64)


def has_density(rows: np.ndarray, noise: np.ndarray) -> bool:
    """Return whether a Gaussian fitted to rows with such noise has a density: none of its columns collinear."""
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    if flat.shape[1] > GAUSSIAN_DIMS:
        return False
    if (noise > 0).all():
        return True
    covariance = np.cov(flat, rowvar=False, bias=True).reshape(len(noise), -1) + np.diag(noise)
    deviation = np.sqrt(np.diag(covariance))
    if len(flat) <= flat.shape[1] or not deviation.all():
        return False
    return bool(np.linalg.cond(covariance / np.outer(deviation, deviation)) < LARGEST_CONDITION)


def _conditional_gaussian(dataset: Dataset) -> dict[str, np.ndarray]:
    """Return log p(x | c) = log p(x, c) - log p(c) of one Gaussian of rows and contexts, in bits/dim of the rows, (N,).

    It is a linear regression on the contexts with normal errors. {} where the Gaussian has no density.
    """
    rows = [dataset.events(split) for split in ("train", "test")]
    given = [np.asarray(events.contexts).reshape(len(events), -1) for events in rows]
    both = [np.concatenate((e.rows.reshape(len(e), -1), c), 1) for e, c in zip(rows, given, strict=True)]
    none = np.zeros(given[0].shape[1])
    noise = np.concatenate((noise_of(dataset), none))
    if not has_density(both[0], noise) or not has_density(given[0], none):
        return {}
    joint, alone = (
        gaussian_bits(*parts, noise_variance=own) * parts[0].shape[1] for parts, own in ((both, noise), (given, none))
    )
    return {"Gaussian given the context": (joint - alone) / dataset.dims}

"""Two models without learning, beside which every likelihood is printed: a histogram per pixel and one Gaussian."""

import numpy as np

from longflow.units import bits_per_dim

UNIFORM_VARIANCE = 1 / 12
"""Variance of U[0, 1): what dequantisation adds, which keeps the covariance of constant pixels regular."""


def histogram_bits(train: np.ndarray, test: np.ndarray, levels: int) -> np.ndarray:
    """Return bits/dim of each test event, (N,), under independent histograms of each dimension.

    Exact for the discrete data. Counts are raised by one in all (1 / levels for each level), so that a value never
    seen in training has a finite cost.
    """
    train, test = train.reshape(len(train), -1), test.reshape(len(test), -1)
    counts = np.stack([(train == level).sum(0) for level in range(levels)])
    log_mass = np.log((counts + 1 / levels) / (len(train) + 1))
    nats = np.take_along_axis(log_mass, test.astype(np.intp), 0).sum(1)
    return np.asarray([bits_per_dim(float(n), train.shape[1]) for n in nats])


def gaussian_bits(train: np.ndarray, test: np.ndarray, *, noise_variance: float | np.ndarray = 0.0) -> np.ndarray:
    """Return bits/dim of each test event, (N,), under a full-covariance Gaussian fitted to the training events.

    With independent noise of that variance in each dimension, or of one for each, (D,) (dequantisation:
    `UNIFORM_VARIANCE`), the fit adds the noise's exact moments, and the score is the exact expectation over it: a
    flow's bound without Monte-Carlo error.
    """
    train = train.reshape(len(train), -1).astype(np.float64)
    test = test.reshape(len(test), -1).astype(np.float64)
    dims = train.shape[1]
    covariance = np.cov(train, rowvar=False, bias=True).reshape(dims, dims) + noise_variance * np.eye(dims)
    factor = np.linalg.cholesky(covariance)
    white = np.linalg.solve(factor, (test - train.mean(0)).T)
    spread = (noise_variance * np.square(np.linalg.inv(factor))).sum()
    nats = -0.5 * (np.square(white).sum(0) + spread + dims * np.log(2 * np.pi)) - np.log(np.diag(factor)).sum()
    return np.asarray([bits_per_dim(float(n), dims) for n in nats])

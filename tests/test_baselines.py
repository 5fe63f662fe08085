"""The two models without learning, against closed forms."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from longflow.baselines import UNIFORM_VARIANCE, gaussian_bits, histogram_bits


def test_histogram_is_a_smoothed_count():
    train = np.array([[0, 1], [0, 2], [0, 1], [1, 1]], dtype=np.uint8)
    mass = lambda count: (count + 1 / 3) / 5  # noqa: E731
    expected = -(np.log2(mass(3)) + np.log2(mass(1))) / 2
    assert histogram_bits(train, np.array([[0, 2]], dtype=np.uint8), 3) == pytest.approx([expected])


def test_histogram_is_normalised():
    rng = np.random.default_rng(0)
    train = rng.integers(0, 4, (30, 2), dtype=np.uint8)
    every = np.stack(np.meshgrid(range(4), range(4)), -1).reshape(-1, 2).astype(np.uint8)
    assert np.exp2(-2 * histogram_bits(train, every, 4)).sum() == pytest.approx(1)


def test_gaussian_of_continuous_data_is_scipys():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 3)), rng.normal(size=(7, 3))
    oracle = multivariate_normal(train.mean(0), np.cov(train, rowvar=False, bias=True)).logpdf(test)
    assert gaussian_bits(train, test, noise_variance=0.0) == pytest.approx(-oracle / 3 / np.log(2))


def test_gaussian_of_dequantised_data_is_the_mean_over_the_noise():
    rng = np.random.default_rng(0)
    train, test = rng.integers(0, 9, (40, 2)), rng.integers(0, 9, (3, 2))
    covariance = np.cov(train, rowvar=False, bias=True) + np.eye(2) / 12
    oracle = multivariate_normal(train.mean(0) + 0.5, covariance)
    noisy = np.stack([oracle.logpdf(row + rng.random((200_000, 2))).mean() for row in test])
    assert gaussian_bits(train, test, noise_variance=UNIFORM_VARIANCE) == pytest.approx(
        -noisy / 2 / np.log(2), abs=2e-3
    )


def test_constant_pixels_do_not_break_the_gaussian():
    train = np.zeros((10, 4), dtype=np.uint8)
    assert np.isfinite(gaussian_bits(train, train, noise_variance=UNIFORM_VARIANCE)).all()

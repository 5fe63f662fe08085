"""The Fréchet distance of two samples of features."""

import numpy as np

from longflow.errors import UsageError


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Return the Fréchet distance of the Gaussians that have the moments of x and y, both (N, F).

    The estimate is biased upwards by a term that falls like 1/N and depends on the distributions (Bińkowski et al.
    2018; Chong & Forsyth 2020): two samples of one distribution are at a distance above 0. So values compare only at
    one N, that of x and y, and beside that of real rows at the same N.

    Raises:
        UsageError: unequal counts, fewer than two rows, or other numbers of features.
    """
    if x.shape != y.shape or len(x) < 2:
        raise UsageError(f"expected two samples of one shape (N, F), N >= 2; {x.shape} and {y.shape} came")
    return frechet_of_moments(*moments(x), *moments(y))


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean, (F,), and unbiased covariance, (F, F), of features (N, F), in float64."""
    x = x.astype(np.float64)
    return x.mean(0), np.atleast_2d(np.cov(x, rowvar=False))


def frechet_of_moments(
    mean_x: np.ndarray, covariance_x: np.ndarray, mean_y: np.ndarray, covariance_y: np.ndarray
) -> float:
    """Return ‖m_x - m_y‖² + tr(C_x + C_y - 2 (C_x C_y)^½), the squared 2-Wasserstein distance of two Gaussians.

    With C = F Fᵀ by eigenvectors, the eigenvalues of C_x C_y are the squared singular values of F_xᵀ F_y, so that the
    trace of the root is their sum (Dowson & Landau 1982). Nothing is inverted and no root is taken of a difference:
    covariances may be of any rank.
    """
    overlap = np.linalg.svd(_factor(covariance_x).T @ _factor(covariance_y), compute_uv=False).sum()
    spread = np.trace(covariance_x) + np.trace(covariance_y) - 2 * overlap
    return float(np.square(mean_x - mean_y).sum() + max(spread, 0.0))


def _factor(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(values.clip(min=0))

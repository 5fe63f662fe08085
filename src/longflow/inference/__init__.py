"""Inference: flows fitted to densities that are not normalised, weights that say how well, posteriors of simulators."""

from longflow.inference.calibration import sbc_ranks, uniformity
from longflow.inference.divergences import ForwardKL, LogDensity, ReverseKL
from longflow.inference.fit import Fit, fit_density
from longflow.inference.importance import Weighted, importance
from longflow.inference.laplace import Laplace, laplace
from longflow.inference.pareto import generalised_pareto, pareto_smoothed
from longflow.inference.posterior import Posterior, Sampled, fit_posterior

__all__ = [
    "Fit",
    "ForwardKL",
    "Laplace",
    "LogDensity",
    "Posterior",
    "ReverseKL",
    "Sampled",
    "Weighted",
    "fit_density",
    "fit_posterior",
    "generalised_pareto",
    "importance",
    "laplace",
    "pareto_smoothed",
    "sbc_ranks",
    "uniformity",
]

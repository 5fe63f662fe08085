"""Distributions: base densities, flows, and flows of discrete data."""

from longflow.distributions.bases import (
    DiagonalNormal,
    GaussianMixture,
    StandardLogistic,
    StandardNormal,
    Uniform,
)
from longflow.distributions.classes import ClassNormal
from longflow.distributions.distribution import Case, Distribution, Likelihood, Noise, Temperature
from longflow.distributions.flow import Dequantised, Flow
from longflow.distributions.hybrid import Hybrid
from longflow.distributions.injective import Injective
from longflow.distributions.stretch import Hutchinson

__all__ = [
    "Case",
    "ClassNormal",
    "Dequantised",
    "DiagonalNormal",
    "Distribution",
    "Flow",
    "GaussianMixture",
    "Hutchinson",
    "Hybrid",
    "Injective",
    "Likelihood",
    "Noise",
    "StandardLogistic",
    "StandardNormal",
    "Temperature",
    "Uniform",
]

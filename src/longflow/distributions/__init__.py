"""Distributions: base densities, flows, and flows of discrete data."""

from longflow.distributions.bases import (
    DiagonalNormal,
    GaussianMixture,
    StandardLogistic,
    StandardNormal,
    Uniform,
)
from longflow.distributions.classes import ClassNormal, ClusterNormal
from longflow.distributions.dequantised import Binned, Dequantised, MixedDequantised
from longflow.distributions.distribution import Case, Distribution, Likelihood, Noise, Temperature
from longflow.distributions.flow import Flow
from longflow.distributions.given import Given
from longflow.distributions.grey import Bernoulli, Categorical, GreyBernoulli, LogisticMixture
from longflow.distributions.hybrid import Head, Hybrid
from longflow.distributions.injective import Injective
from longflow.distributions.latent import LatentModel
from longflow.distributions.parametric import EqualNormal, Normal, NormalMixture
from longflow.distributions.recurrent import Recurrent
from longflow.distributions.stretch import Hutchinson
from longflow.distributions.torch_distribution import TorchDistribution

__all__ = [
    "Bernoulli",
    "Binned",
    "Case",
    "Categorical",
    "ClassNormal",
    "ClusterNormal",
    "Dequantised",
    "DiagonalNormal",
    "Distribution",
    "EqualNormal",
    "Flow",
    "GaussianMixture",
    "Given",
    "GreyBernoulli",
    "Head",
    "Hutchinson",
    "Hybrid",
    "Injective",
    "LatentModel",
    "Likelihood",
    "LogisticMixture",
    "MixedDequantised",
    "Noise",
    "Normal",
    "NormalMixture",
    "Recurrent",
    "StandardLogistic",
    "StandardNormal",
    "Temperature",
    "TorchDistribution",
    "Uniform",
]

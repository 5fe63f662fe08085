"""Models that are not plain densities."""

from longflow.families.rectangular import ManifoldLikelihood
from longflow.families.vae import VAE
from longflow.families.vamp import VampPrior

__all__ = ["VAE", "ManifoldLikelihood", "VampPrior"]

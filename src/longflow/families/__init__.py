"""Models that are not plain densities."""

from longflow.families.cluster import ClusterVAE
from longflow.families.vae import VAE
from longflow.families.vamp import VampPrior

__all__ = ["VAE", "ClusterVAE", "VampPrior"]

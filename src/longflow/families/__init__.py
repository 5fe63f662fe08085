"""Models that are not plain densities."""

from longflow.families.autoencoder import Autoencoder
from longflow.families.nvae import NVAE
from longflow.families.vae import VAE
from longflow.families.vamp import VampPrior

__all__ = ["NVAE", "VAE", "Autoencoder", "VampPrior"]

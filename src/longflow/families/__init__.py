"""Models that are not plain densities."""

from longflow.families.autoencoder import Autoencoder
from longflow.families.bottleneck import VIB, Bottleneck, InformationBottleneck, Multiplier
from longflow.families.cluster import ClusterVAE
from longflow.families.infomax import InfoMax, MutualInformation
from longflow.families.matching import FlowMatching, MatchedFlow
from longflow.families.nvae import NVAE
from longflow.families.rectangular import ManifoldLikelihood
from longflow.families.representation import Coder, Representation, RepresentationObjective
from longflow.families.vae import VAE
from longflow.families.vamp import VampPrior

__all__ = [
    "NVAE",
    "VAE",
    "VIB",
    "Autoencoder",
    "Bottleneck",
    "ClusterVAE",
    "Coder",
    "FlowMatching",
    "InfoMax",
    "InformationBottleneck",
    "ManifoldLikelihood",
    "MatchedFlow",
    "Multiplier",
    "MutualInformation",
    "Representation",
    "RepresentationObjective",
    "VampPrior",
]

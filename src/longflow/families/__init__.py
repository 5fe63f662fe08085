"""Models that are not plain densities."""

from longflow.families.bottleneck import VIB, Bottleneck, InformationBottleneck, Multiplier
from longflow.families.infomax import InfoMax, MutualInformation
from longflow.families.rectangular import ManifoldLikelihood
from longflow.families.representation import Coder, Representation, RepresentationObjective
from longflow.families.vae import VAE
from longflow.families.vamp import VampPrior

__all__ = [
    "VAE",
    "VIB",
    "Bottleneck",
    "Coder",
    "InfoMax",
    "InformationBottleneck",
    "ManifoldLikelihood",
    "Multiplier",
    "MutualInformation",
    "Representation",
    "RepresentationObjective",
    "VampPrior",
]

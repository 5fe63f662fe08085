"""Measures of samples, of clusters and of codes. Arrays in, numbers out; nothing here knows what a flow is."""

from longflow.quality.clusters import Agreement, Occupancy, agreement, occupancy
from longflow.quality.codes import Codes, diagnose_codes
from longflow.quality.coverage import density_coverage, precision_recall
from longflow.quality.extractors import extractor_of
from longflow.quality.features import Extractor, Material
from longflow.quality.frechet import frechet_distance
from longflow.quality.kernel import kernel_distance
from longflow.quality.memorisation import Memorisation, find_copies
from longflow.quality.probes import Labelled, Probe, compare_probes
from longflow.quality.summary import summarise

__all__ = [
    "Agreement",
    "Codes",
    "Extractor",
    "Labelled",
    "Material",
    "Memorisation",
    "Occupancy",
    "Probe",
    "agreement",
    "compare_probes",
    "density_coverage",
    "diagnose_codes",
    "extractor_of",
    "find_copies",
    "frechet_distance",
    "kernel_distance",
    "occupancy",
    "precision_recall",
    "summarise",
]

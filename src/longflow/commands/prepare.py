"""What training makes of a configuration and a data set before its first step."""

import os
import shutil
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from longflow.adaptive import has_statistics
from longflow.commands.configure import classifier_alone
from longflow.data import Dataset
from longflow.data.cautions import cautions
from longflow.distributions import Hybrid
from longflow.errors import UsageError
from longflow.families import Autoencoder, Coder, InfoMax, Representation
from longflow.models import CATALOGUE
from longflow.objectives import ClassLikelihood, MaximumLikelihood, NoisyLikelihood, Objective
from longflow.training.processes import world_size
from longflow.units import counted


def caution(dataset: Dataset) -> None:
    """Say on stderr what is to be known of a table."""
    for told in cautions(dataset):
        print(f"longflow: {told}", file=sys.stderr)


def check_batches(model: torch.nn.Module, batch: int) -> None:
    """Raise UsageError where statistics of batches would be those of a process's share, or of one row."""
    if has_statistics(model) and (world_size() > 1 or batch < 2):
        raise UsageError(
            "normalisation of batches expects one process and at least 2 rows in a batch;"
            f" {counted(world_size(), 'process', 'processes')} and batches of {batch} came"
        )


def check_compiled(model: Coder, config: Mapping[str, Any]) -> None:
    """Raise UsageError for a step that is asked to be compiled and cannot be."""
    if not config["compile"]:
        return
    if not isinstance(objective_of(config), MaximumLikelihood) or has_statistics(model):
        raise UsageError(
            "--compile is for densities that are trained by their likelihood alone, without statistics of batches"
        )
    compilers = (os.environ.get("CXX", "c++"), "g++", "clang++")
    if not any(map(shutil.which, compilers)):
        raise UsageError(f"--compile expects a C++ compiler; none of {', '.join(compilers)} is to be found")


def check_importance(model: Coder, config: Mapping[str, Any]) -> None:
    """Raise UsageError where importance weights would be trained that do not reach every parameter."""
    drawn = (config["objective"] or {}).get("importance", 1)
    inner = None if isinstance(model, Representation) else model.density
    if drawn > 1 and isinstance(inner, Autoencoder) and not inner.by_weights:
        raise UsageError(
            "--importance expects neither a mixture as the posterior nor clusters: importance weights have no gradient"
            " in the weights of the one, nor in what assigns the other"
        )


def check_negatives(model: Coder, config: Mapping[str, Any]) -> None:
    """Raise UsageError where InfoMax would have nothing to tell codes apart from, or no term that does so."""
    if not isinstance(model, InfoMax):
        return
    if config["recipe"]["batch"] < 2:
        raise UsageError("infomax expects at least 2 rows in a batch, which are each other's negatives; 1 came")
    if model.place is None and not config["objective"]["alpha"]:
        raise UsageError("infomax of vectors has no local term: it expects --alpha above 0")


def check_classifier(model: Coder, config: Mapping[str, Any]) -> None:
    """Raise UsageError where nothing would be trained: a weight of 0 for a density that has no classifier beside it."""
    if not classifier_alone(config) or isinstance(model, Representation):
        return
    if not isinstance(model.density, Hybrid):
        raise UsageError("--density-weight 0 expects a classifier beside the density, as iresnet and residualflow have")


def units_of(dataset: Dataset) -> tuple[np.ndarray, np.ndarray | None]:
    """Return what a model takes its units from: training rows and, where there are some, contexts."""
    return dataset.split("train"), None if dataset.contexts is None else dataset.contexts.splits["train"]


def classes_of(config: Mapping[str, Any], dataset: Dataset, split: str = "train") -> np.ndarray | None:
    """Return the labels (N,) of a split, for a model of classes."""
    return dataset.labels[split] if config["options"].get("classes") and dataset.labels else None


def conditions_of(config: Mapping[str, Any], dataset: Dataset) -> np.ndarray | None:
    """Return what each training row is conditioned on: its context, or its label for a model of classes."""
    return classes_of(config, dataset) if dataset.contexts is None else dataset.contexts.splits["train"]


def objective_of(config: Mapping[str, Any]) -> Objective:
    """Return what a run minimises: its model's own objective, or a likelihood."""
    own = CATALOGUE[config["model"]].objective
    if own is not None:
        return own(**config["objective"])
    if config["options"].get("classes"):
        return ClassLikelihood(config["label_weight"], config["density_weight"])
    return MaximumLikelihood() if config["noise"] is None else NoisyLikelihood(*config["noise"])

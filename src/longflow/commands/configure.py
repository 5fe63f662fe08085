"""What a training run is asked for, and the configuration that determines it."""

import dataclasses
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

import longflow
from longflow.adaptive import check_differing
from longflow.data import CATALOGUE as SETS
from longflow.data import Dataset
from longflow.errors import UsageError, choose
from longflow.models import CATALOGUE
from longflow.models.autoencoder import of_levels
from longflow.nets import embedding
from longflow.objectives import ClassLikelihood
from longflow.seeds import check_seed
from longflow.training import Recipe

DEFAULT_STEPS = 3000
LABEL_WEIGHT = 0.01


@dataclass(frozen=True)
class Settings:
    """What a training run is asked for, beside the model's own options and the recipe.

    Attributes:
        data: A name from `longflow list`, or a path.
        out: Run directory; by default runs/MODEL-DATA.
        epochs: Passes over the data; by default about 3,000 steps.
        steps: Optimiser steps, instead of --epochs.
        seed: Seed of weights, order and noise.
        device: auto, cpu, cuda, cuda:1, ...
        threads: CPU threads; by default all cores.
        resume: Go on with the run in --out, bit by bit as if it had not stopped.
        preset: Named options of the model, which flags override.
        levels: Requantise data with levels to so many (32 is Glow's 5 bits).
        preprocess: First bijection; by default unit for levels, standardise for continuous data.
        noise: Train on x + U[LOW, HIGH) in place of dequantised data.
        adapt: Initialise scales from a batch of data before the first step.
        label_weight: Weight of the classifier's cross-entropy (in bits), for models of classes.
        density_weight: Weight of the density (in bits/dim), for models of classes; 0 trains a classifier alone.
        support: Where the values of a column lie, COLUMN=SUPPORT, for each column anew: real, LOW:, :HIGH, LOW:HIGH,
            integer, integer LOW:HIGH, ...
        patience: Stop after so many validations without improvement; 0 for never.
        compile: Compile the step of a density that is trained by its likelihood (by torch.compile, which needs a C++
            compiler and takes a minute): flows of many small operations then train in about half of the time.
        context: Columns of the table, separated by commas, that the density is conditional on, p(the others | these);
            or the name of an array of the .npz (beside x, or as train_NAME, ...). It has a value for each row.
        embed_features: Features that a network makes of a context, for the model to see; 0 for the context itself.
        embed_width: Units of the network's layers, or maps of its convolutions where contexts are series or pictures.
        embed_depth: Layers of the network before the last.
    """

    data: str = "digits"
    out: str | None = None
    epochs: int | None = None
    steps: int | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    resume: bool = False
    preset: str | None = None
    levels: int | None = None
    preprocess: Literal["unit", "centred", "logit", "standardise", "none"] | None = None
    noise: tuple[float, float] | None = None
    adapt: bool = True
    label_weight: float = LABEL_WEIGHT
    density_weight: float = 1.0
    support: tuple[str, ...] = ()
    patience: int = 0
    compile: bool = False
    context: tuple[str, ...] = ()
    embed_features: int = 0
    embed_width: int = 64
    embed_depth: int = 2


def configuration(
    name: str,
    settings: Settings,
    recipe: Recipe,
    options: Mapping[str, Any],
    dataset: Dataset,
    objectives: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return all that determines the run, as config.json keeps it.

    `objectives` are the fields of the model's own objective, for those that have one.
    """
    choose("model", name, CATALOGUE)
    check_seed(settings.seed)
    if settings.noise is not None and dataset.levels is None:
        raise UsageError("--noise expects data with levels; these are continuous")
    if settings.noise is not None and options.get("classes"):
        raise UsageError("expected --noise or --classes, not both")
    if settings.adapt:
        check_differing(torch.from_numpy(dataset.split("train")))
    ClassLikelihood(settings.label_weight, settings.density_weight)
    per_epoch = max(1, dataset.sizes["train"] // recipe.batch)
    resolved = CATALOGUE[name].resolve(settings.preset, options)
    resolved |= _conditioned(name, settings, resolved, dataset)
    objective = _objective(name, objectives, settings)
    check_values(resolved, dataset)
    preprocess = settings.preprocess or _preprocessing(resolved, dataset)
    check_labels(resolved.get("classes", 0), dataset)
    if resolved.get("clusters", 0) > dataset.sizes["train"]:
        raise UsageError(
            f"expected at most {dataset.sizes['train']:,} clusters, one for each training row;"
            f" {resolved['clusters']:,} came"
        )
    if not settings.resume:
        _check_idle(name, settings, resolved)
    return {
        "longflow": longflow.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "model": name,
        "options": resolved,
        "shape": list(dataset.shape),
        "levels": dataset.levels,
        "preprocess": preprocess,
        "supports": dataset.supports and [str(s) if s else None for s in dataset.supports],
        "data": {
            "spec": settings.data if settings.data in SETS else str(Path(settings.data).resolve()),
            "name": dataset.name,
            "quantised": settings.levels,
            "sha256": dataset.sha256,
            "labels_sha256": dataset.labels_sha256 if resolved.get("classes") else None,
            "sizes": dict(dataset.sizes),
            "columns": None if dataset.columns is None else list(dataset.columns),
            "dtypes": dataset.dtypes and dict(dataset.dtypes),
            **_contexts(dataset),
        },
        "embedding": _embedding(settings, dataset),
        "noise": None if settings.noise is None else list(settings.noise),
        "adapt": settings.adapt,
        "label_weight": settings.label_weight,
        "density_weight": settings.density_weight,
        "objective": objective,
        "recipe": dataclasses.asdict(recipe),
        "steps": _steps(settings, per_epoch),
        "patience": settings.patience,
        "compile": settings.compile,
        "seed": settings.seed,
        "device": settings.device,
        "threads": settings.threads,
    }


def _objective(name: str, fields: Mapping[str, Any] | None, settings: Settings) -> dict[str, Any] | None:
    """Return the fields of the model's own objective; None for a model that is trained by its likelihood."""
    kind = CATALOGUE[name].objective
    if kind is None:
        return None
    if settings.noise is not None:
        raise UsageError(f"{name} expects no --noise: it is trained by its own objective")
    return dataclasses.asdict(kind(**(fields or {})))


def _check_idle(name: str, settings: Settings, options: Mapping[str, Any]) -> None:
    """Raise UsageError for settings that would do nothing, with which older runs may have begun."""
    if settings.patience < 0:
        raise UsageError(f"expected --patience >= 0; {settings.patience} came")
    for weight, default in (("density_weight", 1), ("label_weight", LABEL_WEIGHT)):
        flag = f"--{weight.replace('_', '-')}"
        if getattr(settings, weight) == default:
            continue
        if CATALOGUE[name].objective is not None:
            raise UsageError(f"{name} expects no {flag}: it is trained by its own objective")
        if not options.get("classes"):
            hint = " (--classes)" if "classes" in options else ""
            raise UsageError(f"{flag} is for models of classes; this one has none{hint}")


def _conditioned(name: str, settings: Settings, options: Mapping[str, Any], dataset: Dataset) -> dict[str, int]:
    """Return the number of context features that the model is to see, {} where it sees none."""
    contexts = dataset.contexts
    if contexts is None:
        if options.get("context"):
            raise UsageError(f"a model of contexts expects data with some (--context); {dataset.name} has none")
        if settings.embed_features:
            raise UsageError("--embed-features expects a --context to make them of")
        return {}
    able = [other for other, model in CATALOGUE.items() if "context" in model.options]
    if name not in able:
        raise UsageError(f"--context expects a model that takes one ({', '.join(able)}); {name} is none")
    if options.get("classes"):
        raise UsageError("expected --classes or --context, not both (a column of the table may be the class)")
    embedding(contexts.shape, **_sizes(settings))
    return {"context": settings.embed_features or math.prod(contexts.shape)}


def _sizes(settings: Settings) -> dict[str, int]:
    return {"features": settings.embed_features, "width": settings.embed_width, "depth": settings.embed_depth}


def _contexts(dataset: Dataset) -> dict[str, Any]:
    """Return what is kept of the data's contexts."""
    contexts = dataset.contexts
    if contexts is None:
        return {"context_columns": None, "context_sha256": None}
    return {
        "context_columns": list(contexts.names),
        "context_features": list(contexts.features),
        "context_range": list(contexts.range) if contexts.features else None,
        "context_sha256": contexts.sha256,
        "table": None if contexts.table is None else list(contexts.table),
    }


def _embedding(settings: Settings, dataset: Dataset) -> dict[str, Any] | None:
    if dataset.contexts is None:
        return None
    sizes = {f"embed_{name}": size for name, size in _sizes(settings).items()}
    return {"context_shape": list(dataset.contexts.shape), **sizes}


def _preprocessing(options: Mapping[str, Any], dataset: Dataset) -> str:
    """Return the default first bijection."""
    if of_levels(options):
        return "none"
    return "standardise" if dataset.levels is None else "unit"


def check_values(options: Mapping[str, Any], dataset: Dataset) -> None:
    """Raise UsageError for continuous data that a likelihood of levels cannot take."""
    if not of_levels(options):
        return
    if dataset.levels is not None:
        return
    rows = np.concatenate([dataset.splits[split].ravel() for split in dataset.splits])
    if rows.min() < 0 or rows.max() > 1:
        raise UsageError(
            f"a {options['likelihood']} likelihood expects values in [0, 1];"
            f" {dataset.name} has {rows.min():g} to {rows.max():g}"
        )
    if options["likelihood"] == "bernoulli" and not np.isin(rows, (0, 1)).all():
        raise UsageError(
            f"a bernoulli likelihood expects values 0 and 1; {dataset.name} has others (--likelihood grey is the"
            " cross-entropy of grey values, which is no likelihood)"
        )


def classifier_alone(config: Mapping[str, Any]) -> bool:
    """Return whether a run trains no density, only the classifier beside it."""
    return config.get("density_weight") == 0


def check_labels(classes: int, dataset: Dataset) -> None:
    """Raise UsageError unless the data have labels 0 to classes - 1; classes 0 stands for a model without."""
    if not classes:
        return
    if dataset.labels is None:
        raise UsageError(f"a model of {classes} classes expects data with labels; {dataset.name} has none")
    found = np.unique(np.concatenate([dataset.labels[split] for split in dataset.splits]))
    absent = np.setdiff1d(np.arange(classes), dataset.labels["train"])
    if found.min() < 0 or found.max() >= classes:
        raise UsageError(
            f"a model of {classes} classes expects labels 0 to {classes - 1};"
            f" {dataset.name} has {found.min()} to {found.max()}"
        )
    if len(absent):
        raise UsageError(f"a model of {classes} classes expects rows of each; {dataset.name} has none of {absent[0]}")


def _steps(settings: Settings, per_epoch: int) -> int:
    if settings.epochs is not None and settings.steps is not None:
        raise UsageError("expected --epochs or --steps, not both")
    for name, value in (("epochs", settings.epochs), ("steps", settings.steps)):
        if value is not None and value < 1:
            raise UsageError(f"expected --{name} >= 1; {value} came")
    epochs = settings.epochs or math.ceil(DEFAULT_STEPS / per_epoch)
    return settings.steps or epochs * per_epoch


def default_out(model: str, spec: str) -> str:
    """Return the run directory of a model and a data set (a name or a path) where none is named."""
    return str(Path("runs") / f"{model}-{Path(spec).stem}")

"""What labels can be read from a model's codes."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from longflow.adaptive import ADAPT_ROWS
from longflow.bijections import adapt, settle
from longflow.commands.datasets import dataset_of
from longflow.commands.draw import open_any
from longflow.commands.given import refuse_contexts
from longflow.commands.prepare import units_of
from longflow.commands.rows import latents_of
from longflow.data import Dataset
from longflow.errors import UsageError
from longflow.families import Coder
from longflow.models import assemble
from longflow.models.supported import fit_units
from longflow.quality import Labelled, compare_probes
from longflow.seeds import fixed_draws

MOST_TRAINING, MOST_TEST = 10_000, 2_000
"""Rows among which neighbours are sought, and rows that are guessed: of more, the first."""


def probe(
    run: str,
    *,
    data: str | None = None,
    labels: int | None = None,
    k: int = 5,
    seed: int = 0,
    device: str = "auto",
) -> dict[str, Any]:
    """Guess test labels from codes, beside guesses from the rows themselves and from an untrained encoder's codes.

    By the k nearest of at most 10,000 labelled training rows, and by a logistic regression on a few labels. What an
    untrained encoder of the same architecture can do is no merit of training, and a good code beats the rows.

    Args:
        run: A run directory of a model with an encoder: a representation, an autoencoder or a flow.
        data: Another data set than the run's own, a name or a path.
        labels: Labelled training rows of the regression, by default 1,000 or all of fewer; 0 for all of them.
        k: Neighbours that vote.
        seed: Seed of the draw of labelled rows, and of the untrained weights.
        device: auto, cpu, cuda, cuda:1, ...
    """
    folder, model = open_any(run, device)
    refuse_contexts(folder)
    dataset = dataset_of(folder, data)
    train, test = (labelled(dataset, split, most) for split, most in (("train", MOST_TRAINING), ("test", MOST_TEST)))
    fresh = untrained(folder.config(), dataset, seed).to(next(model.parameters()).device)
    found = compare_probes(coded(model), coded(fresh), train, test, labels=labels, k=k, seed=seed)
    return {
        "model": folder.config()["model"],
        "data": dataset.name,
        "data_sha256": dataset.sha256,
        "training_rows": len(train.rows),
        "test_rows": len(test.rows),
        "numbers": int(np.prod(model.latent_shape)),
        "seed": seed,
        "probes": {name: dataclasses.asdict(one) for name, one in found.items()},
    }


def labelled(dataset: Dataset, split: str, most: int) -> Labelled:
    """Return the first rows of a split with their classes."""
    if dataset.labels is None:
        raise UsageError(f"a probe expects data with labels; {dataset.name} has none")
    return Labelled(dataset.split(split)[:most], dataset.labels[split][:most])


def coded(model: Coder) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from rows (N, *shape) to their codes (N, F)."""
    return lambda rows: latents_of(model, rows).flatten(1).cpu().numpy()


def untrained(config: Mapping[str, Any], dataset: Dataset, seed: int) -> Coder:
    """Return a model of a configuration before its first step: fresh weights, in the units and scales of the data."""
    with fixed_draws(seed):
        model = assemble(config)
        fit_units(model, *units_of(dataset))
        rows = dataset.split("train")
        some = torch.as_tensor(rows[np.random.default_rng(seed).permutation(len(rows))[:ADAPT_ROWS]])
        (adapt if config.get("adapt", True) else settle)(model, some.to(next(model.parameters())))
    return model.eval()

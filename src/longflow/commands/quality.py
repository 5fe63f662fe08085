"""The quality of a model's samples: distances to held-out rows, each beside that of training rows."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from longflow.commands.datasets import dataset_of
from longflow.commands.draw import draw, labels_to_draw, open_model
from longflow.data import Dataset
from longflow.data.download import home
from longflow.errors import UsageError
from longflow.families.autoencoder import Autoencoder
from longflow.quality import Material, extractor_of, find_copies, likely_kinds, summarise
from longflow.quality.summary import LEAST_ROWS
from longflow.seeds import check_seed

MOST_ROWS = 2000


def quality(
    run: str,
    *,
    n: int | None = None,
    temperature: float = 1.0,
    noise: bool = False,
    extractor: Literal["auto", "classifier", "random", "pca", "inception"] = "auto",
    seed: int = 0,
    cache: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Measure n samples against as many test rows of the run's data, beside training rows against the same ones.

    Fréchet and kernel distance, precision, recall, density and coverage in a space of features, and the distance to the
    nearest training row in the space of the data. Samples that are not finite are counted and left out. No value is an
    FID, or comparable to one: features are of the data at hand. Values compare only at one n and with one extractor,
    whose hash is printed. A conditional density is drawn from under the contexts of the test rows.

    Args:
        run: A run directory.
        n: Samples, test rows and training rows; by default as many as there are test rows, at most 2,000.
        temperature: It multiplies the latent noise; 1 is the model.
        noise: Measure draws from an autoencoder's p(x | z), not its means, which are what `sample` shows.
        extractor: Features: of a small classifier, trained on the data's labels once, and of random convolutions (auto
            takes both, for pictures), or principal components (auto, for all else); or Inception's, where
            torch-fidelity and its weights are installed.
        seed: Seed of the samples and of the rows that are drawn. The extractor's own is 0.
        cache: Folder where extractors are kept; by default beside the data that are downloaded.
        device: auto, cpu, cuda, cuda:1, ...
    """
    check_seed(seed)  # before an extractor is trained
    folder, model = open_model(run, device)
    dataset = dataset_of(folder)
    count = rows_to_compare(dataset, n)
    train, held_out = dataset.split("train"), dataset.split("test")
    source = material(dataset)
    kinds = likely_kinds(source) if extractor == "auto" else (extractor,)
    kept, place = Path(cache) if cache else home("extractors"), next(model.parameters()).device
    made = [extractor_of(source, kind, kept, device=place) for kind in kinds]
    given = _contexts(dataset, count, seed)
    labels = labels_to_draw(model, None, count) if given is None else given.to(next(model.parameters()))
    drawn = draw(model, count, temperature, seed, labels, noise=noise)
    samples = drawn[np.isfinite(drawn).reshape(count, -1).all(1)]
    if len(samples) < LEAST_ROWS:
        raise UsageError(f"{count - len(samples)} of {count} samples are not finite: too few are left to measure")
    target = held_out[_chosen(len(held_out), len(samples), seed)]
    scale = units(dataset)
    near = find_copies(samples / scale, target / scale, train / scale)
    return {
        "model": folder.config()["model"],
        "data": dataset.name,
        "data_sha256": dataset.sha256,
        "temperature": temperature,
        "measured": "means of p(x | z)" if not noise and isinstance(model.density, Autoencoder) else "samples",
        "seed": seed,
        "n": len(samples),
        "not_finite": count - len(samples),
        "features": [
            {"extractor": facts, **summarise(samples, target, features, fresh=train[1::2], seed=seed)}
            for features, facts in made
        ],
        "nearest_training_row": {**vars(near), "ratio": near.ratio},
    }


def _chosen(rows: int, n: int, seed: int) -> np.ndarray:
    """Return which of the test rows are compared with."""
    return np.random.default_rng(seed).permutation(rows)[:n]


def _contexts(dataset: Dataset, n: int, seed: int) -> torch.Tensor | None:
    """Return the contexts of those rows, under which a conditional density is drawn from."""
    contexts = dataset.events("test").contexts
    return None if contexts is None else torch.as_tensor(contexts[_chosen(len(contexts), n, seed)])


def rows_to_compare(dataset: Dataset, n: int | None) -> int:
    """Return n, or its default; raise UsageError where a split has fewer rows."""
    fewest = min(len(dataset.split("train")) // 2, len(dataset.split("test")))
    if n is None:
        n = min(MOST_ROWS, fewest)
    if not LEAST_ROWS <= n <= fewest:
        sizes = f"{dataset.sizes['train']:,} training and {dataset.sizes['test']:,} test rows"
        raise UsageError(
            f"expected -n of {LEAST_ROWS} to {fewest:,} ({dataset.name} has {sizes}, half of the first are the"
            f" extractor's); {n:,} came"
        )
    return n


def material(dataset: Dataset) -> Material:
    """Return a data set as extractors take it: every other training row, so that floors are taken of the rest."""
    labels = dataset.labels or {}
    return Material(
        train=dataset.split("train")[::2],
        test=dataset.splits["test"],
        sha256=dataset.sha256,
        labels=labels["train"][::2] if labels else None,
        test_labels=labels.get("test"),
        labels_sha256=dataset.labels_sha256,
        levels=dataset.levels,
    )


def units(dataset: Dataset) -> np.ndarray | float:
    """Return what rows are divided by before distances are taken: the deviation of each column of a table, else 1."""
    return dataset.split("train").std(0, dtype=np.float64) if dataset.levels is None else 1.0

"""The quality of a model's samples: distances to held-out rows, each beside that of training rows."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from longflow.commands.draw import draw, labels_to_draw, open_model
from longflow.commands.evaluate import dataset_of
from longflow.data import Dataset
from longflow.data.download import home
from longflow.errors import UsageError
from longflow.quality import Material, extractor_of, summarise
from longflow.quality.summary import LEAST_ROWS

MOST_ROWS = 2000


def quality(
    run: str,
    *,
    n: int | None = None,
    temperature: float = 1.0,
    extractor: Literal["auto", "classifier", "random", "pca", "inception"] = "auto",
    seed: int = 0,
    cache: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Measure n samples against as many test rows of the run's data, beside training rows against the same ones.

    Fréchet and kernel distance, precision, recall, density and coverage in a space of features, and the distance to the
    nearest training row in the space of the data. Samples that are not finite are counted and left out. No value is an
    FID, or comparable to one: features are of the data at hand. Values compare only at one n and with one extractor,
    whose hash is printed.

    Args:
        run: A run directory.
        n: Samples, test rows and training rows; by default as many as there are test rows, at most 2,000.
        temperature: It multiplies the latent noise; 1 is the model.
        extractor: Features: of a small classifier, trained on the data's labels once (auto, for labelled pictures), of
            random convolutions (for other pictures), principal components (for all else); or Inception's, where
            torch-fidelity and its weights are installed.
        seed: Seed of the samples and of the rows that are drawn. The extractor's own is 0.
        cache: Folder where extractors are kept; by default beside the data that are downloaded.
        device: auto, cpu, cuda, cuda:1, ...
    """
    folder, model = open_model(run, device)
    dataset = dataset_of(folder)
    count = rows_to_compare(dataset, n)
    labels = labels_to_draw(model, None, count)
    kept = Path(cache) if cache else home("extractors")
    place = next(model.parameters()).device
    features, facts = extractor_of(material(dataset), extractor, kept, device=place)
    train, held_out = dataset.split("train"), dataset.split("test")
    drawn = draw(model, count, temperature, seed, labels)
    samples = drawn[np.isfinite(drawn).reshape(count, -1).all(1)]
    if len(samples) < LEAST_ROWS:
        raise UsageError(f"{count - len(samples)} of {count} samples are not finite: too few are left to measure")
    rows = np.random.default_rng(seed).permutation(len(held_out))[: len(samples)]
    return {
        "model": folder.config()["model"],
        "data": dataset.name,
        "data_sha256": dataset.sha256,
        "temperature": temperature,
        "seed": seed,
        "not_finite": count - len(samples),
        "extractor": facts,
        **summarise(
            samples,
            held_out[rows],
            train,
            features,
            fresh=train[1::2],
            scale=units(dataset),
            seed=seed,
        ),
    }


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

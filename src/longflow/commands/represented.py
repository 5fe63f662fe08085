"""The report of a model that learns a representation: its objective, its confusions, its nearest neighbours."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from longflow import figures
from longflow.commands.draw import kind_of
from longflow.commands.neighbours import nearest
from longflow.commands.progress import names_of
from longflow.commands.represent import probabilities_of
from longflow.commands.rows import latents_of
from longflow.data import Dataset
from longflow.families import Representation
from longflow.report import Picture, Section
from longflow.runs import Run
from longflow.units import counted, with_error

QUERIES, NEIGHBOURS = 8, 6
SEARCHED = 10_000
"""Training rows among which neighbours are sought."""


def sections_of(run: Run, model: Representation, dataset: Dataset, result: Mapping[str, Any]) -> list[Section]:
    """Return the objective's curve, a classifier's confusions, and nearest training pictures by their codes."""
    config = run.config()
    sections = [_objective(run, result)]
    if model.predicts:
        sections.append(_confusions(model, dataset))
    if kind_of(config) == "picture":
        sections.append(_neighbours(model, dataset, config["levels"]))
    return sections


def highlights_of(result: Mapping[str, Any]) -> dict[str, str]:
    """Return the large numbers of the page."""
    if "error" in result:
        return {
            "test error": with_error(result["error"], result["stderr_error"], ".1%"),
            "cross-entropy, bits": f"{result['cross_entropy']:.3f}",
            "rate, bits": f"{result['rate_bits']:.1f}",
        }
    bounds = {f"{name} JS bound, nats": f"{value:.3f}" for name, value in result["js_bounds"].items()}
    return {**bounds, "KL to the prior, nats": f"{result['terms']['kl']:.1f}"}


def _objective(run: Run, result: Mapping[str, Any]) -> Section:
    names = names_of(run.config())
    curve = figures.learning_curve(run.metrics(), train=names.train, validation=names.validation, unit=names.unit)
    if "error" in result:
        text = (
            f"Told wrongly: {with_error(result['error'], result['stderr_error'], '.2%')} of"
            f" {counted(result['n'], 'test event')}, at {result['cross_entropy']:.4f} bits of cross-entropy and an"
            f" expected calibration error of {result['calibration_error']:.3f}. Noisy codes say at most"
            f" {result['rate_bits']:.1f} bits of their data."
        )
    else:
        told = ", ".join(f"{value:.4f} ({name})" for name, value in result["js_bounds"].items())
        text = (
            f"Pairs of data and their codes differ from pairs of strangers by a Jensen-Shannon divergence of at least"
            f" {told} nats, of at most log 2 = {math.log(2):.4f}. It is no mutual information. KL of codes to their"
            f" prior: {result['terms']['kl']:.2f} nats."
        )
    picture = Picture(png=curve, caption="The objective, in bits, against steps; the best validation is kept.")
    return Section(title="Objective", text=text, pictures=(picture,))


def _confusions(model: Representation, dataset: Dataset) -> Section:
    assert dataset.labels is not None
    labels = dataset.labels["test"]
    guessed = probabilities_of(model, dataset.split("test")).argmax(1)
    counts = np.zeros((model.predicts, model.predicts), int)
    np.add.at(counts, (labels, guessed), 1)
    return Section(
        title="Confusions",
        text="Test events by their class and by the class that is guessed.",
        pictures=(Picture(png=figures.confusion(counts), caption="Counts; colours are shares of a row."),),
    )


def _neighbours(model: Representation, dataset: Dataset, levels: int) -> Section:
    queries, searched = dataset.split("test")[:QUERIES], dataset.split("train")[:SEARCHED]
    count = min(NEIGHBOURS, len(searched))
    near, _ = nearest(latents_of(model, queries), latents_of(model, searched), count, "cosine")
    rows = np.concatenate([queries[:, None], searched[near]], 1)
    titles = ["test", *(str(k + 1) for k in range(rows.shape[1] - 1))]
    return Section(
        title="Nearest neighbours",
        text=f"Test pictures, and the training pictures (of {len(searched):,}) whose codes point most nearly the same"
        " way.",
        pictures=(Picture(png=figures.strips(rows, levels=levels, column_titles=titles), caption="By cosine."),),
    )

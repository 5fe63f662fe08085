"""The report's pictures of a model of pictures."""

from collections.abc import Mapping, Sequence

import numpy as np

from longflow import figures
from longflow.commands.draw import beside, draw, labels_to_draw, pictures, reconstructed
from longflow.commands.edit import attributes, auc, direction, edit_strips, moved
from longflow.commands.interpolate import between, spanned
from longflow.commands.rows import latents_of
from longflow.commands.scales import energies, energy_strips, redrawn
from longflow.data import Dataset
from longflow.distributions import LatentModel
from longflow.report import Picture, Section
from longflow.runs import Run

TEMPERATURES = (0.7, 0.85, 1.0)
SHOWN = 16
ROWS = 8
FOR_DIRECTIONS = 2000
"""Training events of which a direction is taken."""

MEASURED = 2000
"""Test events on which directions and scales are measured, at most."""

STRENGTH = 1.6
CLASSES = 3
"""Directions shown where no attribute is named."""


def image_sections(model: LatentModel, dataset: Dataset) -> list[Section]:
    """Return samples, interpolations, reconstructions, and what each scale holds."""
    levels, test = dataset.levels or 256, dataset.split("test")
    return [
        _samples(model, test, levels),
        *_classes(model, levels),
        *_interpolations(model, test, levels),
        _reconstructions(model, test[:10], levels),
        *_scales(model, test, levels),
    ]


def _samples(model: LatentModel, test: np.ndarray, levels: int) -> Section:
    drawn = [draw(model, SHOWN, t, seed=0) for t in TEMPERATURES]
    return Section(
        title="Samples",
        text="Draws from the model, not chosen: seed 0. The temperature multiplies the latent noise; "
        "below 1 the samples are more typical and less varied.",
        pictures=(
            Picture(png=pictures(drawn, TEMPERATURES, levels), caption="Samples by temperature."),
            Picture(png=figures.image_grid(test[:50], levels=levels, columns=10), caption="Test data, for comparison."),
        ),
    )


def _classes(model: LatentModel, levels: int) -> list[Section]:
    count = model.base.classes
    if not count:
        return []
    drawn = draw(model, ROWS * count, TEMPERATURES[0], 0, labels_to_draw(model, None, ROWS * count))
    grid = figures.image_grid(drawn, levels=levels, columns=count)
    return [
        Section(
            title="Classes",
            text="Draws for each class. Only the prior knows the class: the same latent is decoded alike for all.",
            pictures=(Picture(png=grid, caption=f"Classes 0 to {count - 1}, temperature {TEMPERATURES[0]}."),),
        )
    ]


def _interpolations(model: LatentModel, test: np.ndarray, levels: int) -> list[Section]:
    if len(test) < 4:
        return []
    lines = figures.strips(between(model, test, min(6, len(test) // 2), 11, 0), levels=levels)
    square = figures.strips(spanned(model, test, 8, 0), levels=levels)
    return [
        Section(
            title="Interpolation",
            text="Straight lines between the latents of two test pictures, decoded: the ends are data. Then the torus "
            "cos φ (cos φ' z1 + sin φ' z2) + sin φ (cos φ' z3 + sin φ' z4) that four of them span (RealNVP, 4.2).",
            pictures=(
                Picture(png=lines, caption="Random pairs of the test data."),
                Picture(png=square, caption="A manifold of four test pictures; φ and φ' = 0, π/4, ..."),
            ),
        )
    ]


def _reconstructions(model: LatentModel, rows: np.ndarray, levels: int) -> Section:
    both = beside(rows, reconstructed(model, rows), levels)
    return Section(
        title="Reconstruction",
        text="Encoded and decoded again. An invertible model loses nothing; of an autoencoder they are the means of "
        "p(x | z) at the centre of q(z | x).",
        pictures=(Picture(png=both, caption="Test pictures."),),
    )


def _scales(model: LatentModel, test: np.ndarray, levels: int) -> list[Section]:
    count = model.scale_count
    if count < 2:
        return []
    rows = test[:ROWS]
    anew = [redrawn(model, rows, range(k + 1), TEMPERATURES[0], 1, seed=0)[:, 0] for k in range(count)]
    strips = np.stack([rows.astype(anew[0].dtype), *anew])
    titles = ["data", *(f"0 to {k} redrawn" if k else "0 redrawn" for k in range(count))]
    maps = energies(model, test[:MEASURED])
    told = ", ".join(f"scale {k} {part.mean():.2f}" for k, part in enumerate(maps))
    return [
        Section(
            title="Scale by scale",
            text="Scale 0 is factored out first, and is the finest. Redrawing it alone changes details; redrawing all "
            "of them gives another picture. Below, at each place the mean square of the latent, standardised by the "
            f"prior, of which 1 is expected (means: {told}).",
            pictures=(
                Picture(
                    png=figures.strips(strips, levels=levels, row_titles=titles),
                    caption=f"Test pictures with ever more scales redrawn, temperature {TEMPERATURES[0]}.",
                ),
                Picture(
                    png=energy_strips(rows, maps, levels),
                    caption="Mean square by place and scale; white is 3 or more.",
                ),
            ),
        )
    ]


def known_attributes(
    run: Run, dataset: Dataset, names: Sequence[str], table: str | None
) -> dict[str, dict[str, np.ndarray]]:
    """Return which rows of each split have each attribute: those named or, of labelled pictures, the first classes.

    Raises UsageError where a named one is unknown.
    """
    if names:
        return {name: attributes(run, dataset, name, table) for name in names}
    if dataset.labels is None:
        return {}
    found = sorted({int(k) for k in np.unique(dataset.labels["train"])})[:CLASSES]
    return {f"class {k}": {split: y == k for split, y in dataset.labels.items()} for k in found} if found[1:] else {}


def edit_sections(model: LatentModel, dataset: Dataset, known: Mapping[str, Mapping[str, np.ndarray]]) -> list[Section]:
    """Return strips along the direction of each attribute; nothing where there is none."""
    return [_edited(model, dataset, known)] if known else []


def _edited(model: LatentModel, dataset: Dataset, known: Mapping[str, Mapping[str, np.ndarray]]) -> Section:
    z = latents_of(model, dataset.split("test")[:MEASURED])
    shown = []
    for name, has in known.items():
        along, _ = direction(model, dataset.split("train"), has["train"], FOR_DIRECTIONS, name)
        apart = auc(z, has["test"][:MEASURED], along)
        png = edit_strips(moved(model, z[:ROWS], along, STRENGTH, 7), STRENGTH, levels=dataset.levels or 256)
        told = "" if apart is None else f"; its projection tells the attribute in test data with an AUC of {apart:.2f}"
        shown.append(Picture(png=png, caption=f"{name}{told}."))
    return Section(
        title="Editing",
        text="Test pictures moved along the mean latent of the training pictures with an attribute minus that of those "
        "without, from -1.6 to +1.6 times that direction; the middle is the picture itself.",
        pictures=tuple(shown),
    )

"""The sections of a report on a conditional density: p(x | c) at some contexts, and draws under those of test rows."""

from math import prod
from typing import Any

import numpy as np
import torch

from longflow import figures
from longflow.commands.draw import beside, draw, kind_of, reconstructed
from longflow.commands.sections import frame, heat
from longflow.data import Contexts, Dataset, Events
from longflow.distributions import Flow, LatentModel
from longflow.report import Picture, Section

SHOWN = 2000
PICTURES = 50
PLACES = (0.1, 0.5, 0.9)
"""Quantiles of the first number of a context at which densities of the plane are drawn."""


def conditional_sections(model: LatentModel, dataset: Dataset, config: dict[str, Any]) -> list[Section]:
    """Return densities of the plane at three contexts, and samples or pictures under the contexts of test rows."""
    events = dataset.events("test")
    if kind_of(config) == "picture":
        return [_drawn_pictures(model, events[:PICTURES], dataset.levels or 256)]
    return [*_densities(model, dataset, events), _samples(model, dataset, events[:SHOWN])]


def _densities(model: LatentModel, dataset: Dataset, events: Events) -> list[Section]:
    flow, contexts = model.density, events.contexts
    if dataset.shape != (2,) or dataset.contexts is None or contexts is None or not isinstance(flow, Flow):
        return []
    order = np.argsort(contexts.reshape(len(contexts), -1)[:, 0])
    chosen = contexts[order[[round(place * (len(order) - 1)) for place in PLACES]]]
    extent, columns = frame(events.rows), dataset.columns or ("x1", "x2")
    heats = [heat(flow.at(c), extent) for c in torch.as_tensor(chosen).to(next(model.parameters()))]
    most = figures.brightest_of(heats)
    return [
        Section(
            title="Density",
            text="The conditional density that the model has learnt, under the contexts of three test rows. One scale"
            " of colours for all three.",
            pictures=[
                Picture(
                    png=figures.density(one, extent=extent, columns=columns, brightest=most),
                    caption=f"p(x | {told(dataset.contexts, value)})",
                )
                for one, value in zip(heats, chosen, strict=True)
            ],
        )
    ]


def told(contexts: Contexts, value: np.ndarray) -> str:
    """Return a context in words: its numbers by name, or the array's name where it is no vector."""
    numbers = [f"{name} = {number:g}" for name, number in zip(contexts.features, value.flat, strict=False)]
    return ", ".join(numbers) or contexts.names[0]


def _under(model: LatentModel, events: Events) -> np.ndarray:
    """Return one draw under the context of each event."""
    assert events.contexts is not None
    contexts = torch.as_tensor(events.contexts).to(next(model.parameters()))
    return draw(model, len(events), 1.0, 0, contexts)


def _samples(model: LatentModel, dataset: Dataset, events: Events) -> Section:
    dims = prod(dataset.shape)
    picture = figures.scatter(
        _under(model, events).reshape(-1, dims),
        columns=dataset.columns or (),
        reference=events.rows.reshape(-1, dims),
    )
    return Section(
        title="Samples",
        text="A draw at temperature 1 under the context of each test row, beside test data.",
        pictures=(Picture(png=picture, caption="The first columns."),),
    )


def _drawn_pictures(model: LatentModel, events: Events, levels: int) -> Section:
    grids = [figures.image_grid(rows, levels=levels, columns=10) for rows in (_under(model, events), events.rows)]
    back = beside(events.rows[:10], reconstructed(model, events[:10]), levels)
    return Section(
        title="Samples",
        text="A draw at temperature 1 under the context of each test picture, not chosen: seed 0.",
        pictures=(
            Picture(png=grids[0], caption="Samples."),
            Picture(png=grids[1], caption="The test pictures whose contexts they have."),
            Picture(png=back, caption="Test pictures encoded and decoded again."),
        ),
    )

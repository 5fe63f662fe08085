"""The sections of a report on points of the plane, on tables, and on a learned scale."""

from math import prod

import numpy as np
import torch

from longflow import figures
from longflow.bijections import Learned, Scale
from longflow.commands.draw import draw
from longflow.data import Dataset
from longflow.distributions import Flow, LatentModel
from longflow.report import Picture, Section
from longflow.values import values_only

PLANE_CELLS = 300
AT_ONCE = 10_000


MOST_STEPS = 20
"""Of a flow's layers that are drawn."""


FEWEST_DIMS = 8
"""Of a spectrum that is worth a picture."""


Step = tuple[str, torch.Tensor]


def plane_sections(model: LatentModel, dataset: Dataset) -> list[Section]:
    """Return the density (of whole numbers k, that of [k, k + 1)) and, of a flow, its warped grid and its layers."""
    test = dataset.split("test")
    extent = frame(test)
    like = next(model.parameters())

    def tensor(points: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(points).to(like)

    padded = model.latent_shape != model.shape
    drawn = draw(model, 2000, 1.0, seed=0, noise=True)
    samples = Picture(
        png=figures.scatter(drawn, columns=dataset.columns or (), reference=test[:2000]),
        caption="Test data, and samples at temperature 1.",
    )
    if model.likelihood == "none":
        return [Section(title="Samples", text="What the model dreams.", pictures=(samples,))]
    inner = model.density
    exact = inner.likelihood == "exact"
    density = Section(
        title="Density",
        text="The density that the model has learnt, and what it dreams.",
        pictures=(
            Picture(
                png=figures.density(heat(model, extent), extent=extent, columns=dataset.columns or ("x1", "x2")),
                caption="p(x), of integral 1 over the whole plane." if exact else "A lower bound of p(x), by 20 draws.",
            ),
            samples,
        ),
    )
    if padded or not isinstance(inner, Flow):
        return [density]
    before = figures.regular_grid(extent)
    with torch.inference_mode(), values_only():
        after = inner.encode(tensor(before.reshape(-1, 2))).cpu().numpy().reshape(before.shape)
        some = model.middle(tensor(test[:1500]))
        steps = thinned([("data", some), *inner.bijection.trace(some)])
    clouds = [value.cpu().numpy() for _, (_, value) in steps]
    names = [f"{k}: {name}" if k else name for k, (name, _) in steps]
    return [
        density,
        Section(
            title="The flow",
            text="A regular grid of the data's plane and its image in the latent plane: it bends, and never tears.",
            pictures=(Picture(png=figures.warped_grid(before, after), caption="The warped grid."),),
        ),
        Section(
            title="Layer by layer",
            text="Test points, coloured by where they start, after steps on the way to the latent.",
            pictures=(Picture(png=figures.layers(clouds, names), caption="Data becoming noise."),),
        ),
    ]


def frame(test: np.ndarray) -> tuple[float, float, float, float]:
    """Return the box of test points of the plane and a margin."""
    low, high = test.min(0), test.max(0)
    low, high = low - 0.15 * (high - low), high + 0.15 * (high - low)
    return float(low[0]), float(high[0]), float(low[1]), float(high[1])


def heat(model: LatentModel, extent: tuple[float, float, float, float]) -> np.ndarray:
    """Return log-densities on a grid of the plane, (H, W), in nats; the bounds of 20 draws where they are not exact."""
    axes = [np.linspace(extent[2 * k], extent[2 * k + 1], PLANE_CELLS) for k in range(2)]
    cells = torch.as_tensor(np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)).to(next(model.parameters()))
    with torch.inference_mode():
        draws = 1 if model.density.likelihood == "exact" else 20
        found = torch.cat([model.density.bound(x, samples=draws) for x in cells.split(AT_ONCE)]).cpu().numpy()
    return found.reshape(PLANE_CELLS, PLANE_CELLS)


def thinned(steps: list[Step]) -> list[tuple[int, Step]]:
    """Return at most 20 steps, with their numbers: all, or some evenly chosen with the first and the last."""
    last = len(steps) - 1
    chosen = (
        sorted({round(k * last / (MOST_STEPS - 1)) for k in range(MOST_STEPS)})
        if last >= MOST_STEPS
        else range(last + 1)
    )
    return [(k, steps[k]) for k in chosen]


def table_sections(model: LatentModel, dataset: Dataset) -> list[Section]:
    """Return samples beside test data."""
    drawn = draw(model, 2000, 1.0, seed=0, noise=True).reshape(2000, prod(dataset.shape))
    test = dataset.split("test")[:2000].reshape(-1, prod(dataset.shape))
    picture = figures.scatter(drawn, columns=dataset.columns or (), reference=test)
    return [
        Section(
            title="Samples",
            text="Draws at temperature 1, beside test data.",
            pictures=(Picture(png=picture, caption="The first columns."),),
        )
    ]


def spectrum_sections(model: LatentModel) -> list[Section]:
    """Show σ_d = exp(-s_d) of the last learned scale, where the model has one (NICE)."""
    layers = [m for m in model.modules() if isinstance(m, Learned) and isinstance(m.inner, Scale)]
    if not layers or model.dims < FEWEST_DIMS:
        return []
    sigma = (-layers[-1].theta.detach()).exp().cpu().double().numpy().ravel()
    return [
        Section(
            title="Which dimensions matter",
            text="The scale layer multiplies each latent dimension by 1/σ. A dimension of small σ hardly varies in the "
            "data: its part of the manifold has collapsed, and it carries little but noise (Su Jianlin, on NICE).",
            pictures=(Picture(png=figures.spectrum(sigma, shape=model.shape), caption="Spectrum of the scale layer."),),
        )
    ]

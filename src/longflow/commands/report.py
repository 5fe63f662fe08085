"""The report of a run: final likelihood beside two models without learning, and the pictures a reader wants to see."""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import torch

from longflow import figures
from longflow.baselines import UNIFORM_VARIANCE, gaussian_bits, histogram_bits
from longflow.bijections import Learned, Scale
from longflow.commands.configure import classifier_alone
from longflow.commands.draw import draw, kind_of
from longflow.commands.evaluate import dataset_of, measure, standard_error
from longflow.commands.gallery import edit_sections, image_sections, known_attributes
from longflow.commands.progress import names_of
from longflow.data import Dataset
from longflow.distributions import Dequantised, Flow
from longflow.errors import UsageError
from longflow.models import CATALOGUE, load
from longflow.report import Picture, Section, page
from longflow.runs import Run, write_bytes, write_json, write_text
from longflow.training.device import prepare
from longflow.values import values_only

GAUSSIAN_DIMS = 3072
"""Largest number of dimensions for which the full-covariance Gaussian is fitted."""

LARGEST_CONDITION = 1e10
"""Of a correlation matrix; beyond it the columns are collinear to the rounding of the stored float32."""

PLANE_CELLS = 300
MOST_STEPS = 20
"""Of a flow's layers that are drawn."""

FEWEST_DIMS = 8
"""Of a spectrum that is worth a picture."""

Step = tuple[str, torch.Tensor]


def report(
    run: str, *, attribute: tuple[str, ...] = (), table: str | None = None, device: str = "auto"
) -> dict[str, Any]:
    """Evaluate on the test split, draw the pictures, and write report.json, samples/*.png and report.html.

    Args:
        run: A run directory.
        attribute: Attributes to show the editing of, as in `edit`; by default the first classes of labelled pictures.
        table: The table whose columns they are, as in `edit`.
        device: auto, cpu, cuda, cuda:1, ...
    """
    folder = Run.open(run)
    place = prepare(device)
    config = folder.config()
    dataset = dataset_of(folder)
    if table is not None and not attribute:
        raise UsageError("expected --attribute with --table: which of its columns?")
    if attribute and kind_of(config) != "picture":
        raise UsageError(f"--attribute shows edited pictures; {folder} holds a model of other data")
    known = known_attributes(folder, dataset, attribute, table)
    model = load(folder.path).to(place)
    result = {
        **measure(folder, model, dataset),
        "parameters": sum(p.numel() for p in model.parameters()),
        "baselines": {} if classifier_alone(config) else baselines(dataset),
    }
    write_json(folder.report_file, result)
    sections = [_likelihood(folder, result), *_pictures(folder, model, dataset, known), _how(config)]
    for section in sections:
        for picture, name in zip(section.pictures, _names(section), strict=True):
            write_bytes(folder.samples / name, picture.png)
    html = page(
        folder.path.name,
        _facts(config, dataset, result),
        sections,
        lead=f"{config['model']}: {CATALOGUE[config['model']].about}, trained on {dataset.name}.",
        highlights=_highlights(result),
    )
    write_text(folder.page_file, html)
    return {"run": str(folder.path), **result, "report": str(folder.page_file)}


def baselines(dataset: Dataset) -> dict[str, dict[str, float]]:
    """Return test bits/dim and standard error of models without learning, in the units of the flow's."""
    train, test = dataset.split("train"), dataset.split("test")
    found: dict[str, np.ndarray] = {}
    if dataset.dims <= GAUSSIAN_DIMS and (dataset.levels is not None or _is_full_rank(train)):
        found["Gaussian"] = gaussian_bits(train, test, noise_variance=UNIFORM_VARIANCE if dataset.levels else 0.0)
    if dataset.levels is not None:
        found["histogram per dimension"] = histogram_bits(train, test, dataset.levels)
    return {
        name: {"bits_per_dim": float(bits.mean()), "stderr_bits_per_dim": standard_error(bits)}
        for name, bits in found.items()
    }


def _is_full_rank(rows: np.ndarray) -> bool:
    """Return whether a Gaussian fitted to continuous rows has a density: more rows than features, none collinear."""
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    if len(flat) <= flat.shape[1]:
        return False
    return bool(np.linalg.cond(np.corrcoef(flat, rowvar=False)) < LARGEST_CONDITION)


def _highlights(result: dict[str, Any]) -> dict[str, str]:
    found = {f"classes found, {way}": f"{share:.1%}" for way, share in result.get("accuracy", {}).items()}
    if "trained" in result:
        return found
    shown = {"test bits/dim": f"{result['bits_per_dim']:.3f} ± {result['stderr_bits_per_dim']:.3f}", **found}
    for name, value in result["baselines"].items():
        shown[name] = f"{value['bits_per_dim']:.3f}"
    return {**shown, "nats": f"{result['nats']:.2f}"}


def _facts(config: dict[str, Any], dataset: Dataset, result: dict[str, Any]) -> dict[str, object]:
    return {
        "model": config["model"],
        "options": ", ".join(f"{k} {v}" for k, v in config["options"].items() if v is not None),
        "parameters": f"{result['parameters']:,}",
        "data": f"{dataset.name}: " + ", ".join(f"{size:,} {split}" for split, size in dataset.sizes.items()),
        "shape and levels": f"{'×'.join(map(str, dataset.shape))}, {dataset.levels or 'continuous'}",
        "data sha256": dataset.sha256,
        "preprocessing": config["preprocess"],
        "likelihood": _convention(result),
        "round trip, max abs": f"{result['roundtrip_max_abs']:.2g} (units of the stored data, {result['dtype']})",
        "recipe": ", ".join(f"{k} {v}" for k, v in config["recipe"].items()),
        "steps": config["steps"],
        "seed": config["seed"],
        "versions": f"longflow {config['longflow']}, torch {config['torch']}, Python {config['python']}",
    }


def _convention(result: dict[str, Any]) -> str:
    kind = {"exact": "exact", "lower bound": "upper bound of bits/dim"}.get(result["likelihood"], result["likelihood"])
    noise = (
        f", {result['dequantiser']} dequantisation, {result['importance_samples']} draw"
        if result["dequantiser"]
        else ""
    )
    return f"{kind}{noise}; mean ± standard error over {result['n']:,} test events, in units of the stored data"


def _likelihood(run: Run, result: dict[str, Any]) -> Section:
    text = (
        f"Test {result['bits_per_dim']:.4f} ± {result['stderr_bits_per_dim']:.4f} bits/dim ({_convention(result)}). "
        "Below, the same test events under models that learn nothing but moments or counts of the training data. "
        "Many pixels of simple pictures are constant, and a histogram spends nothing on those, while a flow of "
        "dequantised data must learn that their noise is flat: the histogram is hard to beat."
    )
    if result["likelihood"] == "exact":
        text = text.split(" Many pixels")[0]
    names = names_of(run.config())
    curve = figures.learning_curve(run.metrics(), train=names.train, validation=names.validation, unit=names.unit)
    kept = f"{names.unit} against steps; the best validation is kept.".capitalize()
    if "trained" in result:
        return Section(
            title="Classification",
            text=f"{result['accuracy']['classifier']:.1%} of the test labels are found. The density beside it was not "
            "trained.",
            pictures=(Picture(png=curve, caption=kept),),
        )
    bars = {"this flow": result} | result["baselines"]
    values = {name: (v["bits_per_dim"], v["stderr_bits_per_dim"]) for name, v in bars.items()}
    return Section(
        title="Likelihood",
        text=text,
        pictures=(
            Picture(png=figures.comparison(values), caption="Test bits/dim; lower is better."),
            Picture(
                png=curve,
                caption=f"{names.unit} against steps; the best validation is kept.".capitalize(),
            ),
        ),
    )


def _names(section: Section) -> list[str]:
    stem = section.title.lower().replace(" ", "-")
    return [f"{stem}-{k + 1}.png" for k in range(len(section.pictures))]


def _how(config: dict[str, Any]) -> Section:
    return Section(title="How it was made", code=config.get("command", "longflow.commands.train (Python)"))


def _pictures(
    run: Run, model: Flow | Dequantised, dataset: Dataset, known: Mapping[str, Mapping[str, np.ndarray]]
) -> list[Section]:
    kind = kind_of(run.config())
    if kind == "picture":
        return [
            *image_sections(model, dataset),
            *edit_sections(model, dataset, known),
            *_spectrum(model),
        ]
    return [*{"plane": _plane_sections, "table": _table_sections}[kind](model, dataset), *_spectrum(model)]


def _plane_sections(model: Flow | Dequantised, dataset: Dataset) -> list[Section]:
    test = dataset.split("test")
    low, high = test.min(0), test.max(0)
    low, high = low - 0.15 * (high - low), high + 0.15 * (high - low)
    extent = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))
    like = next(model.parameters())

    def tensor(points: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(points).to(like)

    axes = [np.linspace(low[k], high[k], PLANE_CELLS) for k in range(2)]
    cells = np.stack(np.meshgrid(*axes), -1).reshape(-1, 2)
    padded = model.latent_shape != model.shape
    with torch.inference_mode():
        heat = model.bound(tensor(cells), samples=20 if padded else 1).cpu().numpy().reshape(PLANE_CELLS, PLANE_CELLS)
    drawn = draw(model, 2000, 1.0, seed=0)
    density = Section(
        title="Density",
        text="The density that the flow has learnt, and what it dreams.",
        pictures=(
            Picture(
                png=figures.density(heat, extent=extent, columns=dataset.columns or ("x1", "x2")),
                caption="A lower bound of p(x), by 20 draws."
                if padded
                else "p(x), of integral 1 over the whole plane.",
            ),
            Picture(
                png=figures.scatter(drawn, columns=dataset.columns or (), reference=test[:2000]),
                caption="Test data, and samples at temperature 1.",
            ),
        ),
    )
    if padded:
        return [density]
    before = figures.regular_grid(extent)
    with torch.inference_mode(), values_only():
        after = model.encode(tensor(before.reshape(-1, 2))).cpu().numpy().reshape(before.shape)
        steps = thinned([("data", tensor(test[:1500])), *model.density.bijection.trace(tensor(test[:1500]))])
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


def thinned(steps: list[Step]) -> list[tuple[int, Step]]:
    """Return at most 20 steps, with their numbers: all, or some evenly chosen with the first and the last."""
    last = len(steps) - 1
    chosen = (
        sorted({round(k * last / (MOST_STEPS - 1)) for k in range(MOST_STEPS)})
        if last >= MOST_STEPS
        else range(last + 1)
    )
    return [(k, steps[k]) for k in chosen]


def _table_sections(model: Flow | Dequantised, dataset: Dataset) -> list[Section]:
    drawn = draw(model, 2000, 1.0, seed=0).reshape(2000, prod(dataset.shape))
    test = dataset.split("test")[:2000].reshape(-1, prod(dataset.shape))
    picture = figures.scatter(drawn, columns=dataset.columns or (), reference=test)
    return [
        Section(
            title="Samples",
            text="Draws at temperature 1, beside test data.",
            pictures=(Picture(png=picture, caption="The first columns."),),
        )
    ]


def _spectrum(model: Flow | Dequantised) -> list[Section]:
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

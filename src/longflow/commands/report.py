"""The report of a run: final likelihood beside two models without learning, and the pictures a reader wants to see."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from longflow import figures
from longflow.commands.conditional import conditional_sections
from longflow.commands.configure import classifier_alone
from longflow.commands.datasets import context_of, dataset_of, declarations
from longflow.commands.draw import kind_of
from longflow.commands.evaluate import measure
from longflow.commands.gallery import edit_sections, image_sections, known_attributes
from longflow.commands.progress import names_of
from longflow.commands.represent import measure_codes
from longflow.commands.represented import highlights_of, sections_of
from longflow.commands.sections import plane_sections, spectrum_sections, table_sections
from longflow.commands.simplest import baselines
from longflow.data import Dataset
from longflow.distributions import LatentModel
from longflow.errors import UsageError
from longflow.families import Representation
from longflow.files import write_bytes, write_json, write_text
from longflow.models import CATALOGUE, load
from longflow.report import Picture, Section, page
from longflow.runs import Run
from longflow.training.device import prepare
from longflow.units import counted, with_error
from longflow.words.likelihood import floor_words


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
    model = load(folder.path).to(place)
    size = {"parameters": sum(p.numel() for p in model.parameters())}
    if isinstance(model, Representation):
        if attribute:
            raise UsageError(f"--attribute shows edited pictures; {folder} holds a model that makes none")
        measured = measure_codes(config, model, dataset, split="test", n=None, draws=0, seed=0)
        result = {**measured, **size, "baselines": {}}
        shown, large = sections_of(folder, model, dataset, result), highlights_of(result)
    else:
        if attribute and dataset.contexts is not None:
            raise UsageError(
                "--attribute shows pictures edited without a context; edit does so for conditional densities"
            )
        known = known_attributes(folder, dataset, attribute, table)
        none = classifier_alone(config) or model.likelihood == "none"
        result = {**measure(folder, model, dataset), **size, "baselines": {} if none else baselines(dataset)}
        shown = [_likelihood(folder, result), *_pictures(folder, model, dataset, known)]
        large = _highlights(result)
    write_json(folder.report_file, result)
    sections = [*shown, _how(config)]
    for section in sections:
        for picture, name in zip(section.pictures, _names(section), strict=True):
            write_bytes(folder.samples / name, picture.png)
    html = page(
        folder.path.name,
        _facts(config, dataset, result),
        sections,
        lead=f"{config['model']}: {CATALOGUE[config['model']].about}, trained on {dataset.name}.",
        highlights=large,
    )
    write_text(folder.page_file, html)
    return {"run": str(folder.path), **result, "report": str(folder.page_file)}


def _highlights(result: dict[str, Any]) -> dict[str, str]:
    found = {f"classes found, {way}": f"{share:.1%}" for way, share in result.get("accuracy", {}).items()}
    if "trained" in result:
        return found
    if result["bits_per_dim"] is None:
        distance = result.get("parts", {}).get("distance")
        return (
            {"test loss, nats": f"{-result['nats']:.2f}", **found}
            if distance is None
            else {"nats on the manifold": f"{result['nats']:.2f}", "distance from it": f"{distance:.3g}"}
        )
    shown = {"test bits/dim": with_error(result["bits_per_dim"], result["stderr_bits_per_dim"], ".3f"), **found}
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
        **({"supports": ", ".join(declarations(config))} if config.get("supports") else {}),
        "data sha256": dataset.sha256,
        "preprocessing": config["preprocess"],
        **({"given": given} if (given := ", ".join(context_of(config))) else {}),
        "likelihood": "none: it has codes and no density" if "terms" in result else _convention(result),
        **({"deviations": floor_words(result["at_floor"])} if result.get("at_floor") else {}),
        "round trip, max abs": _round_trip(result),
        "recipe": ", ".join(f"{k} {v}" for k, v in config["recipe"].items()),
        "steps": config["steps"],
        "seed": config["seed"],
        "versions": f"longflow {config['longflow']}, torch {config['torch']}, Python {config['python']}",
    }


def _round_trip(result: dict[str, Any]) -> str:
    if "terms" in result:
        return "none: there is no decoder"
    error = result["roundtrip_max_abs"]
    if error is None:
        return "none: the model does not invert"
    return f"{error:.2g} (units of the stored data, {result['dtype']})"


def _convention(result: dict[str, Any]) -> str:
    kind = {"exact": "exact", "lower bound": "upper bound of bits/dim"}.get(result["likelihood"], result["likelihood"])
    noise = (
        f", {result['dequantiser']} dequantisation, {counted(result['importance_samples'], 'draw')}"
        if result["dequantiser"]
        else ""
    )
    return f"{kind}{noise}; {_over(result, 'bits_per_dim')}, in units of the stored data"


def _over(result: dict[str, Any], what: str) -> str:
    """Say over how many events a mean is, and whether its error stands beside it."""
    if result[f"stderr_{what}"] is None:
        return "of one test event"
    return f"mean ± standard error over {counted(result['n'], 'test event')}"


def _likelihood(run: Run, result: dict[str, Any]) -> Section:
    names = names_of(run.config())
    curve = Picture(
        png=figures.learning_curve(run.metrics(), train=names.train, validation=names.validation, unit=names.unit),
        caption=f"{names.unit} against steps; the best validation is kept.".capitalize(),
    )
    if "trained" in result:
        return Section(
            title="Classification",
            text=f"{result['accuracy']['classifier']:.1%} of the test labels are found. The density beside it was not "
            "trained.",
            pictures=(curve,),
        )
    if "distance" in result.get("parts", {}):
        return Section(
            title="Manifold",
            text=f"Test {with_error(result['nats'], result['stderr_nats'], '.3f')} nats, the log-density on the"
            f" manifold with respect to its own volume, {_over(result, 'nats')} scored at their"
            f" projections; mean distance from it {result['parts']['distance']:.4g} in units of the data. It is no"
            " density of the data's space.",
            pictures=(curve,),
        )
    if result["bits_per_dim"] is None:
        return Section(
            title="Loss",
            text=f"Test {with_error(-result['nats'], result['stderr_nats'], '.3f')} nats of cross-entropy of greys and"
            f" KL, {_over(result, 'nats')}. It is no likelihood: no grey value is a bit.",
            pictures=(curve,),
        )
    text = (
        f"Test {with_error(result['bits_per_dim'], result['stderr_bits_per_dim'], '.4f')} bits/dim"
        f" ({_convention(result)}). Below, the same test events under models that learn nothing but moments or counts"
        " of the training data."
    )
    if "histogram per dimension" in result["baselines"]:
        text += (
            " Many pixels of simple pictures are constant, and a histogram spends nothing on those, while a density of"
            " dequantised data must learn that their noise is flat: the histogram is hard to beat."
        )
    bars = {f"this {result['model']}": result} | result["baselines"]
    values = {name: (v["bits_per_dim"], v["stderr_bits_per_dim"] or 0.0) for name, v in bars.items()}
    return Section(
        title="Likelihood",
        text=text,
        pictures=(Picture(png=figures.comparison(values), caption="Test bits/dim; lower is better."), curve),
    )


def _names(section: Section) -> list[str]:
    stem = section.title.lower().replace(" ", "-")
    return [f"{stem}-{k + 1}.png" for k in range(len(section.pictures))]


def _how(config: dict[str, Any]) -> Section:
    return Section(title="How it was made", code=config.get("command", "longflow.commands.train (Python)"))


def _pictures(
    run: Run, model: LatentModel, dataset: Dataset, known: Mapping[str, Mapping[str, np.ndarray]]
) -> list[Section]:
    if dataset.contexts is not None:
        return conditional_sections(model, dataset, run.config())
    kind = kind_of(run.config())
    if kind == "picture":
        return [
            *image_sections(model, dataset),
            *edit_sections(model, dataset, known),
            *spectrum_sections(model),
        ]
    return [*{"plane": plane_sections, "table": table_sections}[kind](model, dataset), *spectrum_sections(model)]

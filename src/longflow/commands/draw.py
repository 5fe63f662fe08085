"""Samples and reconstructions, written as pictures, arrays or tables."""

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from longflow import figures
from longflow.commands.datasets import context_of, dataset_of
from longflow.commands.evaluate import Split
from longflow.commands.given import contexts_to_draw, whole_rows
from longflow.commands.rows import pairs_of
from longflow.commands.tables import SUFFIXES, check_table, columns_of, write_table
from longflow.data import Events
from longflow.distributions import LatentModel, Temperature
from longflow.errors import UsageError
from longflow.families import Coder, Representation
from longflow.files import write_bytes
from longflow.models import load
from longflow.runs import Run
from longflow.seeds import fixed_draws
from longflow.training.device import prepare
from longflow.units import counted

DRAWN_AT_ONCE = 1000
MOST_NUMBERS = 10**9

FORMATS = {
    "picture": (".png", ".npz"),
    "plane": (".png", ".csv", ".npz", ".parquet"),
    "table": (".csv", ".npz", ".png", ".parquet"),
}
"""What each kind of data can be written as; the first is the default."""


def kind_of(config: dict[str, Any]) -> str:
    """Return "picture" for images in levels, "plane" for points of two coordinates, "table" for all else."""
    if len(config["shape"]) == 3 and config["shape"][0] in (1, 3) and config["levels"]:
        return "picture"
    return "plane" if config["shape"] == [2] else "table"


def sample(
    run: str,
    *,
    n: int = 64,
    temperature: tuple[float, ...] = (),
    scale_temperature: tuple[float, ...] = (),
    label: int | None = None,
    given: str | None = None,
    given_file: str | None = None,
    noise: bool = False,
    seed: int = 0,
    out: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Draw n events at each temperature and write them; several temperatures side by side in one picture.

    Pictures of an autoencoder are the means of p(x | z) for codes z that are drawn, unless --noise is given; all else
    is drawn from p(x | z). Of a conditional density, tables have the columns of the contexts, too, as the data have.

    Args:
        run: A run directory.
        n: Number of samples, for each temperature.
        temperature: One or more; they multiply the latent noise. By default 0.8 for pictures, 1 for all else.
        scale_temperature: In place of --temperature, one for each scale of the latent, the finest first.
        label: Class that is drawn, for models of classes; by default every class in turn.
        given: The context of all samples, by column: "a=3,b=1.5"; by default contexts of training rows, at random.
        given_file: File whose rows have the contexts of the samples, one after the other and over again.
        noise: Draw from p(x | z), not its mean, for autoencoders: events as the model means them.
        seed: Seed of the draws.
        out: File to write; by default a name under RUN/samples.
        device: auto, cpu, cuda, cuda:1, ...
    """
    folder, model = open_model(run, device)
    config = folder.config()
    if n < 1:
        raise UsageError(f"expected -n >= 1; {n} came")
    if temperature and scale_temperature:
        raise UsageError("expected --temperature or --scale-temperature, not both")
    temperature = temperature or ((0.8,) if kind_of(config) == "picture" else (1.0,))
    if n * math.prod(config["shape"]) > MOST_NUMBERS:
        raise UsageError(f"expected at most {MOST_NUMBERS // math.prod(config['shape']):,} samples; {n:,} came")
    contexts = contexts_to_draw(folder, n, given, given_file, seed)
    if contexts is not None and label is not None:
        raise UsageError("--label is for models of classes; a conditional density takes --given")
    own = (
        labels_to_draw(model, label, n) if contexts is None else torch.as_tensor(contexts).to(next(model.parameters()))
    )
    asked = scale_temperature or temperature
    kind = "S" if scale_temperature else "T"
    mark = [f"{kind}{t:g}" for t in asked] + ([f"label{label}"] if label is not None else [])
    mark += ["given"] if given or given_file else []
    path = output_path(folder, config, "-".join(["sample", *mark, f"seed{seed}"]), out)
    temperatures = [scale_temperatures(model, scale_temperature)] if scale_temperature else list(temperature)
    drawn = [draw(model, n, t, seed, own, noise=noise or kind_of(config) != "picture") for t in temperatures]
    pictured = path.suffix == ".png" and kind_of(config) == "picture"
    if len(drawn) > 1 and not pictured:
        raise UsageError(f"expected one temperature for {path.suffix}; several are for pictures of images")
    columns = (model.base.classes or None) if label is None else None
    write_rows(path, Events(drawn[0], contexts), config, lambda levels: pictures(drawn, temperature, levels, columns))
    key = "scale_temperature" if scale_temperature else "temperature"
    told = {name: value for name, value in (("given", given), ("given_file", given_file)) if value is not None}
    return {"out": str(path), "n": n, key: list(asked), **told, "seed": seed}


def labels_to_draw(model: LatentModel, label: int | None, n: int) -> torch.Tensor | None:
    """Return n classes, all the one asked for or each in turn; None for a model without classes."""
    classes = model.base.classes
    if not classes:
        if label is not None:
            raise UsageError("the run's density knows no classes; --label needs a prior of classes (glow --classes)")
        return None
    if label is not None and not 0 <= label < classes:
        raise UsageError(f"expected --label of 0 to {classes - 1}; {label} came")
    labels = torch.arange(n) % classes if label is None else torch.full((n,), label)
    return labels.to(next(model.parameters()).device)


def scale_temperatures(model: LatentModel, values: Sequence[float]) -> torch.Tensor:
    """Return the temperature of every number of the latent, from one for each scale, the finest first."""
    if len(values) != model.scale_count:
        raise UsageError(
            f"expected a temperature for each of {counted(model.scale_count, 'scale')}; {len(values)} came"
        )
    return torch.tensor(values).to(next(model.parameters()))[model.scale_map()]


def draw(
    model: LatentModel,
    n: int,
    temperature: Temperature,
    seed: int,
    labels: torch.Tensor | None = None,
    *,
    noise: bool = False,
) -> np.ndarray:
    """Return n samples, (n, *shape), fixed by the seed; of the classes or contexts in `labels`, (n, ...), if any.

    They are decoded latents: the samples of a flow, and of an autoencoder the means of p(x | z), unless with `noise`.
    """
    model.check_draw(n, labels, temperature)

    def some(k: int) -> torch.Tensor:
        count, own = min(DRAWN_AT_ONCE, n - k), None if labels is None else labels[k : k + DRAWN_AT_ONCE]
        if noise or (own is not None and not model.base.classes):
            return model.sample(count, own, temperature)
        return model.decode(model.base.sample(count, own, temperature))

    with fixed_draws(seed), torch.inference_mode():
        return np.concatenate([some(k).cpu().numpy() for k in range(0, n, DRAWN_AT_ONCE)])


def pictures(
    drawn: Sequence[np.ndarray], temperatures: Sequence[float], levels: int, columns: int | None = None
) -> bytes:
    """Return a grid of samples, or a labelled block for each temperature."""
    if len(drawn) == 1:
        return figures.image_grid(drawn[0], levels=levels, columns=columns)
    return figures.temperatures(dict(zip(temperatures, drawn, strict=True)), levels=levels, columns=columns)


def reconstruct(
    run: str,
    *,
    data: str | None = None,
    split: Split = "test",
    n: int = 16,
    out: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Encode n events and decode them again; write both and return the largest difference in data units.

    Args:
        run: A run directory.
        data: Another data set than the run's own, a name or a path.
        split: The part of the data.
        n: Number of events.
        out: File to write; by default a name under RUN/samples.
        device: auto, cpu, cuda, cuda:1, ...
    """
    folder, model = open_model(run, device)
    config = folder.config()
    if n < 1:
        raise UsageError(f"expected -n >= 1; {n} came")
    events = dataset_of(folder, data).events(split)[:n]
    path = output_path(folder, config, f"reconstruct-{split}", out)
    back = reconstructed(model, events)
    write_rows(path, Events(back, events.contexts), config, lambda levels: beside(events.rows, back, levels))
    return {"out": str(path), "n": len(events), "max_abs": float(np.abs(back - events.rows).max())}


def open_model(run: str, device: str) -> tuple[Run, LatentModel]:
    """Open a run directory and load its model to the device; raise UsageError for one that is no distribution."""
    folder, model = open_any(run, device)
    if isinstance(model, Representation):
        name = folder.config()["model"]
        raise UsageError(f"{folder} holds a representation ({name}): it has codes and no density (evaluate, probe)")
    return folder, model


def open_any(run: str, device: str) -> tuple[Run, Coder]:
    """Open a run directory and load its model, whatever it has besides its encoder, to the device."""
    place = prepare(device)
    folder = Run.open(run)
    return folder, load(folder.path).to(place)


def output_path(run: Run, config: dict[str, Any], name: str, out: str | None) -> Path:
    """Return where to write; raise UsageError for a suffix that does not suit the data, or a table that exists."""
    allowed = FORMATS[kind_of(config)]
    path = Path(out) if out else run.samples / (name + allowed[0])
    if path.suffix not in allowed:
        raise UsageError(f"expected --out to end in {' or '.join(allowed)}; '{path.name}' came")
    if out and path.suffix != ".png" and path.exists():
        raise UsageError(f"{path} already exists; choose another --out")
    check_table(path)
    return path


def reconstructed(model: LatentModel, rows: np.ndarray | Events) -> np.ndarray:
    """Return rows encoded and decoded again."""
    with torch.inference_mode():
        back = [model.decode(model.encode(x, context), context) for x, context in pairs_of(model, rows)]
        return torch.cat(back).cpu().numpy()


def beside(rows: np.ndarray, back: np.ndarray, levels: int) -> bytes:
    """Draw pictures over their reconstructions."""
    return figures.strips(np.stack([rows, back]), levels=levels, row_titles=["data", "back"])


def write_rows(path: Path, rows: np.ndarray | Events, config: dict[str, Any], picture: Callable[[int], bytes]) -> None:
    """Write rows (N, *shape) as the suffix says, tables with their contexts; images as the picture of their levels."""
    events = Events.of(rows)
    if path.suffix == ".npz":
        write_bytes(path, _arrays(events, config))
    elif path.suffix in SUFFIXES:
        flat, columns = whole_rows(events, config)
        write_table(path, columns_of(flat, columns, config))
    elif kind_of(config) == "picture":
        write_bytes(path, picture(config["levels"]))
    else:
        flat, columns = whole_rows(Events(events.rows), config)
        write_bytes(path, figures.scatter(flat, columns=columns))


def _arrays(events: Events, config: dict[str, Any]) -> bytes:
    content, levels, rows = io.BytesIO(), config["levels"], events.rows
    whole = levels is not None and levels <= 256 and bool((rows == np.rint(rows)).all())
    names = context_of(config)
    given = {} if events.contexts is None else {names[0] if len(names) == 1 else "context": events.contexts}
    np.savez_compressed(content, x=rows.astype(np.uint8) if whole else rows, **given)  # type: ignore[arg-type]
    return content.getvalue()

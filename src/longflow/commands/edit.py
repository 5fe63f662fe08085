"""Editing along attribute directions in the latent space."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from longflow import figures
from longflow.commands.datasets import dataset_of
from longflow.commands.draw import open_model, output_path, write_rows
from longflow.commands.evaluate import Split
from longflow.commands.rows import latents_of
from longflow.data import CATALOGUE as SETS
from longflow.data import Dataset, Events, read
from longflow.distributions import LatentModel
from longflow.errors import UsageError, choose
from longflow.runs import Run
from longflow.units import counted

INDEX = "index"


def edit(
    run: str,
    *,
    attribute: str | None = None,
    table: str | None = None,
    strength: float = 1.6,
    points: int = 7,
    n: int = 8,
    rows: int = 4000,
    split: Split = "test",
    out: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Move events along an attribute's direction: the mean latent of the training events with it, minus that without.

    Writes a strip for each event, from -strength to +strength times the direction; the middle is the event itself.
    `auc` says how well the direction tells the attribute in the events of the split: the area under the ROC curve of
    the projection on it, the probability that an event with it projects further along than one without.

    Args:
        run: A run directory.
        attribute: A column of the table; or, without a table, a class of the data's labels.
        table: A table (.csv, .parquet) with a line for each row of the data file, in its order, or with their numbers
            from 0 in a column "index". An event has the attribute where its value is positive.
        strength: Ends of the strip, in lengths of the direction (Glow's demo: 1.6).
        points: Events in a strip, an odd number.
        n: Number of events that are edited.
        rows: Training events of which the direction is taken, at most; half of them with the attribute.
        split: The part of the data that is edited.
        out: File to write; by default a name under RUN/samples.
        device: auto, cpu, cuda, cuda:1, ...
    """
    folder, model = open_model(run, device)
    if attribute is None:
        raise UsageError("expected --attribute: a column of --table, or a class of the data's labels")
    for name, value, least in (("-n", n, 1), ("--points", points, 3), ("--rows", rows, 2)):
        if value < least:
            raise UsageError(f"expected {name} >= {least}; {value} came")
    if points % 2 == 0:
        raise UsageError(f"expected an odd number of --points, with the event in the middle; {points} came")
    if not math.isfinite(strength):
        raise UsageError(f"expected a finite --strength; {strength} came")
    config = folder.config()
    dataset = dataset_of(folder)
    path = output_path(folder, config, f"edit-{attribute}-{split}", out)
    known = attributes(folder, dataset, attribute, table)
    along, used = direction(model, dataset.events("train"), known["train"], rows, attribute)
    events = dataset.events(split)
    z = latents_of(model, events)
    strips = moved(model, z[:n], along, strength, points, events[:n].contexts)
    contexts = None if events.contexts is None else events.contexts[:n].repeat(points, 0)
    shown = Events(strips.reshape(-1, *config["shape"]), contexts)
    write_rows(path, shown, config, lambda levels: edit_strips(strips, strength, levels=levels))
    return {
        "out": str(path),
        "n": len(strips),
        "attribute": attribute,
        "strength": strength,
        "positives": int(used.sum()),
        "negatives": int((~used).sum()),
        "auc": auc(z, known[split], along),
    }


def attributes(run: Run, dataset: Dataset, attribute: str, table: str | None) -> dict[str, np.ndarray]:
    """Return for each split which of its rows have the attribute, (N,) booleans.

    Raises UsageError where the data have no labels or the table no such column, or not a line for each row.
    """
    if table is None:
        if dataset.labels is None:
            raise UsageError(f"{dataset.name} has no labels: name a table of attributes with --table")
        classes = {str(k) for y in dataset.labels.values() for k in np.unique(y).tolist()}
        chosen = int(choose("class", attribute, sorted(classes)))
        return {split: y == chosen for split, y in dataset.labels.items()}
    spec = run.config()["data"]["spec"]
    if spec in SETS:
        raise UsageError(f"a table of attributes belongs to a data file of your own; the run's data are '{spec}'")
    content = read(spec)
    counted = np.arange(len(content.rows))
    values = _column(table, attribute, len(counted)) > 0
    ends = np.cumsum([len(rows) for rows in content.splits.values()])[:-1]
    parts = dict(zip(content.splits, np.split(values.astype(np.int64), ends), strict=True))
    return {split: y == 1 for split, y in content.cut(parts).items()}


def _column(table: str, attribute: str, rows: int) -> np.ndarray:
    content = read(table)
    if content.columns is None:
        raise UsageError(f"expected a table of attributes with named columns; {table} is none")
    names = [name for name in content.columns if name != INDEX]
    values = content.rows[:, content.columns.index(choose("attribute", attribute, names))]
    found = np.arange(len(values))
    if INDEX in content.columns:
        found = content.rows[:, content.columns.index(INDEX)].astype(np.int64)
    if len(found) != rows or not np.array_equal(np.sort(found), np.arange(rows)):
        missing = np.setdiff1d(np.arange(rows), found)
        lacks = f"; row {missing[0]} is missing" if len(missing) else ""
        raise UsageError(
            f"{table} has {counted(len(found), 'line')}, expected one for each of {counted(rows, 'row')} of the"
            f" data{lacks}"
        )
    return values[np.argsort(found)]


def direction(
    model: LatentModel, rows: np.ndarray | Events, has: np.ndarray, most: int, attribute: str
) -> tuple[Tensor, np.ndarray]:
    """Return the mean latent of the rows that have the attribute minus that of the others, of the event's shape.

    At most half of `most` rows of each kind are taken, from anywhere in the data. Which of those have it comes second.
    """
    if has.all() or not has.any():
        raise UsageError(f"of {len(has)} training rows {int(has.sum())} have '{attribute}': both kinds are needed")
    order = np.random.default_rng(0).permutation(len(rows))
    taken = np.concatenate([order[has[order] == kind][: max(1, most // 2)] for kind in (True, False)])
    rows, has = rows[taken], has[taken]
    with_, without = (latents_of(model, rows[chosen]).mean(0) for chosen in (has, ~has))
    return with_ - without, has


def moved(
    model: LatentModel, z: Tensor, along: Tensor, strength: float, points: int, contexts: np.ndarray | None = None
) -> np.ndarray:
    """Return events decoded from latents moved by -strength … +strength times a direction, (N, points, *shape).

    Each stays under its own context, where there are some.
    """
    steps = torch.linspace(-strength, strength, points).to(along)
    own = None if contexts is None else torch.as_tensor(contexts).to(z)
    with torch.inference_mode():
        return torch.stack([model.decode(z + step * along, own) for step in steps], 1).cpu().numpy()


def auc(z: Tensor, has: np.ndarray, along: Tensor) -> float | None:
    """Return the area under the ROC curve of latents' projection on a direction; None where all are of one kind."""
    from sklearn.metrics import roc_auc_score

    if has.all() or not has.any():
        return None
    return float(roc_auc_score(has, torch.tensordot(z, along, along.dim()).cpu().numpy()))


def edit_strips(strips: np.ndarray, strength: float, *, levels: int) -> bytes:
    """Draw strips (N, points, *shape) titled with their places on the direction."""
    places = np.linspace(-strength, strength, strips.shape[1])
    return figures.strips(strips, levels=levels, column_titles=[f"{place:+.1f}" for place in places])

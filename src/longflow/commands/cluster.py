"""The clusters that a model finds: who is in which, how that agrees with classes, and what they look like."""

import csv
import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch

from longflow import figures
from longflow.commands.datasets import dataset_of
from longflow.commands.draw import draw, kind_of, open_model
from longflow.commands.evaluate import Split
from longflow.commands.rows import latents_of
from longflow.distributions import LatentModel
from longflow.errors import UsageError
from longflow.families import ClusterVAE
from longflow.files import write_bytes, write_text
from longflow.quality import agreement, occupancy

SHOWN = 10
TEMPERATURE = 0.7


def cluster(
    run: str,
    *,
    data: str | None = None,
    split: Split = "test",
    n: int | None = None,
    out: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Assign every event to a cluster, and write a table of rows, their clusters and the probabilities of all clusters.

    An event is assigned by the mean of its code: the likeliest cluster. Where there are labels, they tell how well
    clusters agree with them: `accuracy` gives each cluster one class at most, as well as can be, `purity` each its
    commonest one. Of pictures, a strip for each cluster shows its first members and, beside them, draws from it
    (temperature 0.7).

    Args:
        run: A run directory of a model of clusters (clustervae).
        data: Another data set than the run's own, a name or a path.
        split: The part of the data.
        n: Only the first n events; by default all.
        out: Table to write, .csv; by default a name under RUN/samples. Pictures are beside it.
        device: auto, cpu, cuda, cuda:1, ...
    """
    folder, model = open_model(run, device)
    if not isinstance(model.density, ClusterVAE):
        raise UsageError(f"{folder} holds no model of clusters; train one with longflow train clustervae")
    if n is not None and n < 1:
        raise UsageError(f"expected -n >= 1; {n} came")
    config = folder.config()
    dataset = dataset_of(folder, data)
    rows = dataset.split(split)[:n]
    path = table_path(folder.samples / f"cluster-{split}.csv", out)
    p = memberships(model, rows)
    found = p.argmax(1)
    write_text(path, table(p))
    result = {
        "out": str(path),
        "model": config["model"],
        "data": dataset.name,
        "split": split,
        "n": len(rows),
        "clusters": p.shape[1],
        "occupancy": dataclasses.asdict(occupancy(found, p.shape[1])),
        "mean_probability": float(p.max(1).mean()),
    }
    if dataset.labels:
        result["agreement"] = dataclasses.asdict(agreement(found, dataset.labels[split][: len(rows)]))
    if kind_of(config) == "picture":
        picture = path.with_suffix(".png")
        write_bytes(picture, strips(model, rows, p, config["levels"]))
        result["picture"] = str(picture)
    return result


def table_path(default: Path, out: str | None) -> Path:
    """Return where the table goes; raise UsageError for another suffix than .csv, or for a file that exists."""
    path = Path(out) if out else default
    if path.suffix != ".csv":
        raise UsageError(f"expected --out to end in .csv; '{path.name}' came")
    for file in (path, path.with_suffix(".png")):
        if out and file.exists():
            raise UsageError(f"{file} already exists; choose another --out")
    return path


def memberships(model: LatentModel, rows: np.ndarray) -> np.ndarray:
    """Return the probability of each cluster at the means of rows' codes, (N, K), in float64."""
    density = model.density
    assert isinstance(density, ClusterVAE)
    with torch.inference_mode():
        return density.memberships(latents_of(model, rows)).double().cpu().numpy()


def table(p: np.ndarray) -> str:
    """Return a line for each row: its number, its cluster, the probability of that, and those of all clusters."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["row", "cluster", "p", *(f"p{k}" for k in range(p.shape[1]))])
    for i, (row, best) in enumerate(zip(p, p.argmax(1), strict=True)):
        writer.writerow([i, best, *(f"{value:.6g}" for value in (row[best], *row))])
    return lines.getvalue()


def strips(model: LatentModel, rows: np.ndarray, p: np.ndarray, levels: int) -> bytes:
    """Draw, for each cluster, its first members and draws from it; places that no member fills stay black."""
    clusters, found = p.shape[1], p.argmax(1)
    members = np.zeros((clusters, SHOWN, *rows.shape[1:]))
    for k in range(clusters):
        own = rows[found == k][:SHOWN]
        members[k, : len(own)] = own
    labels = torch.arange(clusters).repeat_interleave(SHOWN).to(next(model.parameters()).device)
    drawn = draw(model, clusters * SHOWN, TEMPERATURE, 0, labels)
    blocks = {
        f"members of clusters 0 to {clusters - 1}": members.reshape(-1, *rows.shape[1:]),
        "draws from them": drawn,
    }
    return figures.blocks(blocks, levels=levels, columns=SHOWN)

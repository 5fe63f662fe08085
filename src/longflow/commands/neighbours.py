"""Search in the latent space: which training events are nearest to an event's code."""

import csv
import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from longflow import figures
from longflow.commands.datasets import dataset_of
from longflow.commands.draw import kind_of, open_any
from longflow.commands.evaluate import Split
from longflow.commands.rows import latents_of
from longflow.errors import UsageError, choose
from longflow.files import write_bytes, write_text

METRICS = ("cosine", "euclidean")
AT_ONCE = 500


def neighbours(
    run: str,
    *,
    n: int = 10,
    k: int = 8,
    metric: Literal["cosine", "euclidean"] = "cosine",
    data: str | None = None,
    split: Split = "test",
    out: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Find the k training events whose codes are nearest to those of n events, and show or list them.

    A picture has a row for each event, itself first; a table (.csv) has columns event, rank, train (the number of the
    training row) and distance. With labels, `agree` is the share of neighbours that have the event's label.

    Args:
        run: A run directory.
        n: Events that are looked up, the first of the split.
        k: Neighbours of each.
        metric: Cosine of the angle between codes, as 1 - cos, or the Euclidean distance.
        data: Another data set than the run's own, a name or a path, from which the n events come.
        split: The part of the data that they come from.
        out: File to write; by default a name under RUN/samples.
        device: auto, cpu, cuda, cuda:1, ...
    """
    folder, model = open_any(run, device)
    config = folder.config()
    choose("metric", metric, METRICS)
    own, queried = dataset_of(folder), dataset_of(folder, data)
    rows, known = queried.split(split)[:n], own.split("train")
    events = queried.events(split)[:n]
    if n < 1 or not 1 <= k <= len(known):
        raise UsageError(f"expected -n >= 1 and -k of 1 to {len(known)}; {n} and {k} came")
    allowed = (".png", ".csv") if kind_of(config) == "picture" else (".csv",)
    path = Path(out) if out else folder.samples / f"neighbours-{metric}-{split}{allowed[0]}"
    if path.suffix not in allowed or (out and path.suffix == ".csv" and path.exists()):
        raise UsageError(f"expected --out to end in {' or '.join(allowed)}, and a table to be new; '{path}' came")
    which, distance = nearest(latents_of(model, events), latents_of(model, own.events("train")), k, metric)
    if path.suffix == ".png":
        sheet = np.concatenate((rows[:, None], known[which]), 1)
        titles = ["event", *(f"{rank + 1}." for rank in range(k))]
        write_bytes(path, figures.strips(sheet, levels=config["levels"], column_titles=titles))
    else:
        write_text(path, _table(which, distance))
    agree = {}
    if own.labels is not None and queried.labels is not None:
        same = own.labels["train"][which] == queried.labels[split][: len(rows), None]
        agree = {"agree": float(same.mean())}
    return {"out": str(path), "n": len(rows), "k": k, "metric": metric, **agree}


def nearest(queries: torch.Tensor, known: torch.Tensor, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the k nearest known codes of each query, (n, k), and their distances, nearest first."""
    queries, known = queries.flatten(1), known.flatten(1)
    if metric == "cosine":
        queries, known = F.normalize(queries, dim=1), F.normalize(known, dim=1)
    found = []
    for some in queries.split(AT_ONCE):
        apart = 1 - some @ known.T if metric == "cosine" else torch.cdist(some, known)
        found.append(apart.topk(k, largest=False))
    indices = torch.cat([part.indices for part in found])
    return indices.cpu().numpy(), torch.cat([part.values for part in found]).cpu().numpy()


def _table(which: np.ndarray, distance: np.ndarray) -> str:
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["event", "rank", "train", "distance"])
    for event, (rows, apart) in enumerate(zip(which, distance, strict=True)):
        writer.writerows(
            [event, rank + 1, int(row), f"{d:.6g}"] for rank, (row, d) in enumerate(zip(rows, apart, strict=True))
        )
    return lines.getvalue()

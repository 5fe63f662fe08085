"""Interpolations in the latent space: lines between two events, and the manifold that four of them span."""

import math
from typing import Any, Literal

import numpy as np
import torch

from longflow import figures
from longflow.commands.datasets import dataset_of
from longflow.commands.draw import open_model, output_path, write_rows
from longflow.commands.evaluate import Split
from longflow.commands.given import refuse_contexts
from longflow.commands.rows import latents_of
from longflow.data import Events
from longflow.distributions import LatentModel
from longflow.errors import UsageError, choose
from longflow.seeds import check_seed

PATHS = ("line", "arc")


def interpolate(
    run: str,
    *,
    data: str | None = None,
    split: Split = "test",
    pairs: int = 8,
    points: int = 11,
    path: Literal["line", "arc"] = "line",
    seed: int = 0,
    out: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Walk in the latent space between pairs of events, and write the decoded points.

    A straight line between two codes leaves the shell on which those of a normal prior lie; the arc
    cos(t) z1 + sin(t) z2, t = 0 to π/2, stays in it, as it is normal wherever z1 and z2 are (Su Jianlin). Each event is
    encoded under its own context, and the contexts of a conditional density go straight from one to the other.

    Args:
        run: A run directory.
        data: Another data set than the run's own, a name or a path.
        split: The part of the data.
        pairs: Number of pairs.
        points: Points on each line, its ends included.
        path: The straight line, or the arc.
        seed: Seed of the choice of pairs.
        out: File to write; by default a name under RUN/samples.
        device: auto, cpu, cuda, cuda:1, ...
    """
    folder, model = open_model(run, device)
    config = folder.config()
    rows = dataset_of(folder, data).events(split)
    if pairs < 1 or points < 2 or len(rows) < 2 * pairs:
        raise UsageError(f"expected 1 <= --pairs <= {len(rows) // 2} and --points >= 2; {pairs} and {points} came")
    mark = "" if path == "line" else f"-{choose('path', path, PATHS)}"
    file = output_path(folder, config, f"interpolate-{split}{mark}-seed{seed}", out)
    line = walks(model, rows, pairs, points, seed, path)
    strips = line.rows.reshape(pairs, points, *config["shape"])
    write_rows(file, line, config, lambda levels: figures.strips(strips, levels=levels))
    return {"out": str(file), "pairs": pairs, "points": points, "path": path, "seed": seed}


def manifold(
    run: str,
    *,
    data: str | None = None,
    split: Split = "test",
    points: int = 8,
    seed: int = 0,
    out: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Interpolate between four events on the manifold that they span in the latent space (RealNVP, section 4.2).

    It is the torus cos φ (cos φ' z1 + sin φ' z2) + sin φ (cos φ' z3 + sin φ' z4), φ and φ' = 0, 2π/points, ...

    Args:
        run: A run directory.
        data: Another data set than the run's own, a name or a path.
        split: The part of the data.
        points: Angles on each of the two circles.
        seed: Seed of the choice of the four.
        out: File to write; by default a name under RUN/samples.
        device: auto, cpu, cuda, cuda:1, ...
    """
    folder, model = open_model(run, device)
    refuse_contexts(folder)
    config = folder.config()
    rows = dataset_of(folder, data).split(split)
    if points < 2 or len(rows) < 4:
        raise UsageError(f"expected --points >= 2 and 4 events; {points} and {len(rows)} came")
    path = output_path(folder, config, f"manifold-{split}-seed{seed}", out)
    square = spanned(model, rows, points, seed)
    write_rows(path, square.reshape(-1, *config["shape"]), config, lambda levels: figures.strips(square, levels=levels))
    return {"out": str(path), "points": points, "seed": seed}


def between(
    model: LatentModel, rows: np.ndarray | Events, pairs: int, points: int, seed: int, path: str = "line"
) -> np.ndarray:
    """Return decoded latent lines, or arcs, between random pairs of rows, (pairs, points, *shape)."""
    found = walks(model, rows, pairs, points, seed, path).rows
    return found.reshape(pairs, points, *found.shape[1:])


def walks(
    model: LatentModel, rows: np.ndarray | Events, pairs: int, points: int, seed: int, path: str = "line"
) -> Events:
    """Return the events along such lines or arcs, one after the other: (pairs · points, *shape)."""
    ends = _some(rows, 2 * pairs, seed)
    contexts = None if ends.contexts is None else torch.as_tensor(ends.contexts).to(next(model.parameters()))
    with torch.inference_mode():
        z = latents_of(model, ends)
        start, end = z[:pairs, None], z[pairs:, None]
        t = _axis(torch.linspace(0, 1, points).to(z), z)
        angle = t * (math.pi / 2)
        walked = torch.lerp(start, end, t) if path == "line" else angle.cos() * start + angle.sin() * end
        if contexts is not None:
            steps = _axis(t.flatten(), contexts)
            contexts = torch.lerp(contexts[:pairs, None], contexts[pairs:, None], steps).flatten(0, 1)
        line = model.decode(walked.flatten(0, 1), contexts).cpu().numpy()
    return Events(line, None if contexts is None else contexts.cpu().numpy())


def _axis(t: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return numbers along axis 1 of lines (pairs, points, ...) of tensors like those given."""
    return t.reshape(1, -1, *[1] * (like.dim() - 1))


def spanned(model: LatentModel, rows: np.ndarray, points: int, seed: int) -> np.ndarray:
    """Return the decoded manifold that four random rows span, (points, points, *shape)."""
    angle = 2 * math.pi * torch.arange(points, dtype=torch.float64) / points
    circle = torch.stack((angle.cos(), angle.sin()), 1)
    weights = torch.einsum("ai,bj->abij", circle, circle).flatten(2)
    with torch.inference_mode():
        z = latents_of(model, _some(rows, 4, seed))
        return torch.stack([model.decode(torch.tensordot(row.to(z), z, 1)) for row in weights]).cpu().numpy()


def _some(rows: np.ndarray | Events, count: int, seed: int) -> Events:
    return Events.of(rows)[np.random.default_rng(check_seed(seed)).permutation(len(rows))[:count]]

"""Interpolations in the latent space: lines between two events, and the manifold that four of them span."""

import math
from typing import Any, Literal

import numpy as np
import torch

from longflow import figures
from longflow.commands.draw import open_model, output_path, write_rows
from longflow.commands.evaluate import Split, dataset_of
from longflow.commands.rows import latents_of
from longflow.distributions import LatentModel
from longflow.errors import UsageError, choose

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
    cos(t) z1 + sin(t) z2, t = 0 to π/2, stays in it, as it is normal wherever z1 and z2 are (Su Jianlin).

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
    rows = dataset_of(folder, data).split(split)
    if pairs < 1 or points < 2 or len(rows) < 2 * pairs:
        raise UsageError(f"expected 1 <= --pairs <= {len(rows) // 2} and --points >= 2; {pairs} and {points} came")
    mark = "" if path == "line" else f"-{choose('path', path, PATHS)}"
    file = output_path(folder, config, f"interpolate-{split}{mark}-seed{seed}", out)
    strips = between(model, rows, pairs, points, seed, path)
    write_rows(file, strips.reshape(-1, *config["shape"]), config, lambda levels: figures.strips(strips, levels=levels))
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
    config = folder.config()
    rows = dataset_of(folder, data).split(split)
    if points < 2 or len(rows) < 4:
        raise UsageError(f"expected --points >= 2 and 4 events; {points} and {len(rows)} came")
    path = output_path(folder, config, f"manifold-{split}-seed{seed}", out)
    square = spanned(model, rows, points, seed)
    write_rows(path, square.reshape(-1, *config["shape"]), config, lambda levels: figures.strips(square, levels=levels))
    return {"out": str(path), "points": points, "seed": seed}


def between(model: LatentModel, rows: np.ndarray, pairs: int, points: int, seed: int, path: str = "line") -> np.ndarray:
    """Return decoded latent lines, or arcs, between random pairs of rows, (pairs, points, *shape)."""
    with torch.inference_mode():
        z = _some_latents(model, rows, 2 * pairs, seed)
        start, end = z[:pairs, None], z[pairs:, None]
        t = torch.linspace(0, 1, points).to(z).reshape(1, -1, *[1] * (z.dim() - 1))
        angle = t * (math.pi / 2)
        walked = torch.lerp(start, end, t) if path == "line" else angle.cos() * start + angle.sin() * end
        line = walked.flatten(0, 1)
        return model.decode(line).unflatten(0, (pairs, points)).cpu().numpy()


def spanned(model: LatentModel, rows: np.ndarray, points: int, seed: int) -> np.ndarray:
    """Return the decoded manifold that four random rows span, (points, points, *shape)."""
    angle = 2 * math.pi * torch.arange(points, dtype=torch.float64) / points
    circle = torch.stack((angle.cos(), angle.sin()), 1)
    weights = torch.einsum("ai,bj->abij", circle, circle).flatten(2)
    with torch.inference_mode():
        z = _some_latents(model, rows, 4, seed)
        return torch.stack([model.decode(torch.tensordot(row.to(z), z, 1)) for row in weights]).cpu().numpy()


def _some_latents(model: LatentModel, rows: np.ndarray, count: int, seed: int) -> torch.Tensor:
    if seed < 0:
        raise UsageError(f"expected --seed >= 0; {seed} came")
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    return latents_of(model, rows[chosen])

"""A latent space seen from within: what its coordinates do, one by one or two together."""

from typing import Any

import numpy as np
import torch

from longflow import figures
from longflow.commands.datasets import dataset_of
from longflow.commands.draw import kind_of, open_model, output_path, write_rows
from longflow.commands.evaluate import Split
from longflow.commands.given import refuse_contexts
from longflow.commands.rows import latents_of
from longflow.distributions import LatentModel
from longflow.errors import UsageError
from longflow.runs import Run

MOST_MEASURED = 1000
"""Events on whose codes a coordinate's variance is taken."""

TAIL = 0.05


def traverse(
    run: str,
    *,
    dims: tuple[int, ...] = (),
    points: int = 15,
    event: int | None = None,
    data: str | None = None,
    split: Split = "test",
    out: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Decode the normal quantiles 5 % to 95 % of latent coordinates: of two, on a square; of others, a strip for each.

    A latent of two numbers is shown whole, as is what two --dims span; else each of the coordinates walks alone while
    the others stay at an event's code, or at nought.

    Args:
        run: A run directory of a model of pictures.
        dims: Coordinates of the (flattened) latent; by default both of two, or the ten whose codes vary most in the
            split.
        points: Quantiles of a coordinate.
        event: Event of the split whose code the other coordinates keep; by default they are nought.
        data: Another data set than the run's own, a name or a path.
        split: The part of the data.
        out: File to write; by default a name under RUN/samples.
        device: auto, cpu, cuda, cuda:1, ...
    """
    folder, model = open_model(run, device)
    refuse_contexts(folder)
    config = folder.config()
    if kind_of(config) != "picture":
        raise UsageError(f"traverse expects a model of pictures; {folder} has data of shape {tuple(config['shape'])}")
    if points < 2:
        raise UsageError(f"expected --points >= 2; {points} came")
    total = model.base.dims
    wrong = [d for d in dims if not 0 <= d < total]
    if wrong or len(set(dims)) < len(dims):
        raise UsageError(f"expected different --dims of 0 to {total - 1}; {' '.join(map(str, dims))} came")
    rows = dataset_of(folder, data).split(split)
    if event is not None and not 0 <= event < len(rows):
        raise UsageError(f"expected --event of 0 to {len(rows) - 1}; {event} came")
    codes = latents_of(model, rows[:MOST_MEASURED]).flatten(1)
    chosen = dims or (tuple(range(2)) if total == 2 else _widest(codes))
    centre = codes.new_zeros(total) if event is None else latents_of(model, rows[event : event + 1]).flatten()
    path = _path(folder, config, chosen, event, out)
    sheet = square(model, centre, chosen, points) if len(chosen) == 2 else walks(model, centre, chosen, points)
    titles = [] if len(chosen) == 2 else [f"z{d}" for d in chosen]
    write_rows(
        path,
        sheet.reshape(-1, *config["shape"]),
        config,
        lambda levels: figures.strips(sheet, levels=levels, row_titles=titles),
    )
    return {"out": str(path), "dims": list(chosen), "points": points, "event": event}


def square(model: LatentModel, centre: torch.Tensor, dims: tuple[int, ...], points: int) -> np.ndarray:
    """Return the decoded square of two coordinates, (points, points, *shape): the first across, the second upwards."""
    q = quantiles(points).to(centre)
    z = centre.repeat(points, points, 1)
    z[..., dims[0]] = q[None, :]
    z[..., dims[1]] = q.flip(0)[:, None]
    return _decoded(model, z)


def walks(model: LatentModel, centre: torch.Tensor, dims: tuple[int, ...], points: int) -> np.ndarray:
    """Return decoded walks along single coordinates, (dims, points, *shape)."""
    z = centre.repeat(len(dims), points, 1)
    for row, d in enumerate(dims):
        z[row, :, d] = quantiles(points).to(centre)
    return _decoded(model, z)


def quantiles(points: int) -> torch.Tensor:
    """Return the normal quantiles of so many even probabilities from 5 % to 95 %."""
    return torch.special.ndtri(torch.linspace(TAIL, 1 - TAIL, points, dtype=torch.float64))


def _decoded(model: LatentModel, z: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        flat = torch.cat([model.decode(part) for part in z.flatten(0, 1).unflatten(1, model.latent_shape).split(250)])
    return flat.unflatten(0, z.shape[:2]).cpu().numpy()


def _widest(codes: torch.Tensor) -> tuple[int, ...]:
    return tuple(sorted(codes.var(0).topk(min(10, codes.shape[1])).indices.tolist()))


def _path(run: Run, config: dict[str, Any], dims: tuple[int, ...], event: int | None, out: str | None) -> Any:
    which = f"event{event}" if event is not None else "origin"
    return output_path(run, config, f"traverse-{'-'.join(map(str, dims))}-{which}", out)

"""What each scale of a latent holds: redrawing some of them, and where each finds an event unlikely."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from longflow import figures
from longflow.commands.datasets import dataset_of
from longflow.commands.draw import kind_of, open_model, output_path, write_rows
from longflow.commands.evaluate import Split
from longflow.commands.given import refuse_contexts
from longflow.commands.rows import batches_of, latents_of
from longflow.distributions import LatentModel
from longflow.errors import UsageError
from longflow.seeds import fixed_draws

BRIGHTEST = 3.0
"""Mean z² that is drawn white; 1 is what the prior expects."""


def resample(
    run: str,
    *,
    scales: tuple[int, ...] = (0,),
    temperature: float = 0.8,
    draws: int = 6,
    n: int = 8,
    data: str | None = None,
    split: Split = "test",
    seed: int = 0,
    out: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Keep the latent of events but for some scales, which are drawn anew; the first column is the event itself.

    Scale 0 is the finest, the one that is factored out first; the last holds what is global.

    Args:
        run: A run directory.
        scales: The scales that are drawn anew.
        temperature: Multiplies the noise of what is drawn.
        draws: Draws for each event.
        n: Number of events.
        data: Another data set than the run's own, a name or a path.
        split: The part of the data.
        seed: Seed of the draws.
        out: File to write; by default a name under RUN/samples.
        device: auto, cpu, cuda, cuda:1, ...
    """
    folder, model = open_model(run, device)
    refuse_contexts(folder)
    config = folder.config()
    for name, value in (("-n", n), ("--draws", draws)):
        if value < 1:
            raise UsageError(f"expected {name} >= 1; {value} came")
    if model.scale_count == 1:
        raise UsageError(
            f"resample keeps some scales; the latent of {folder} has one, and nothing would be kept (sample)"
        )
    rows = dataset_of(folder, data).split(split)[:n]
    named = "-".join(["resample", *map(str, scales), f"T{temperature:g}", split, f"seed{seed}"])
    path = output_path(folder, config, named, out)
    anew = redrawn(model, rows, scales, temperature, draws, seed)
    strips = np.concatenate((rows[:, None].astype(anew.dtype), anew), 1)
    write_rows(path, strips.reshape(-1, *config["shape"]), config, lambda levels: figures.strips(strips, levels=levels))
    return {"out": str(path), "n": len(rows), "scales": list(scales), "temperature": temperature, "seed": seed}


def latents(
    run: str,
    *,
    n: int = 8,
    data: str | None = None,
    split: Split = "test",
    out: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Show where each scale of the latent finds an event unlikely: its mean square over the channels, at every place.

    The latent is standardised by the prior (by that of the likeliest class, for a model of classes), so that 1 is
    expected, drawn grey; white is three or more. The numbers, `mean_z2`, are the means over the split's events.

    Args:
        run: A run directory of a model of pictures.
        n: Number of events that are drawn.
        data: Another data set than the run's own, a name or a path.
        split: The part of the data.
        out: File to write, a .png; by default a name under RUN/samples.
        device: auto, cpu, cuda, cuda:1, ...
    """
    folder, model = open_model(run, device)
    refuse_contexts(folder)
    config = folder.config()
    if n < 1:
        raise UsageError(f"expected -n >= 1; {n} came")
    if kind_of(config) != "picture":
        raise UsageError(f"expected a model of pictures; {folder} holds one of events of shape {config['shape']}")
    rows = dataset_of(folder, data).split(split)
    path = output_path(folder, config, f"latents-{split}", out)
    if path.suffix != ".png":
        raise UsageError(f"expected --out to end in .png; '{path.name}' came")
    maps = energies(model, rows)
    if any(part.dim() != 3 for part in maps):
        raise UsageError(f"expected latents with a place in the picture; those of {folder} are vectors")
    write_rows(path, rows[:n], config, lambda levels: energy_strips(rows[:n], maps, levels))
    return {"out": str(path), "n": len(rows[:n]), "mean_z2": [float(part.mean()) for part in maps]}


def redrawn(
    model: LatentModel, rows: np.ndarray, scales: Sequence[int], temperature: float, draws: int, seed: int
) -> np.ndarray:
    """Return events (N, draws, *shape) whose latents are those of the rows but for the scales drawn anew.

    A model of classes draws from the likeliest class of each row.
    """
    model.density.check_draw(draws, None, temperature)
    where, last = model.scale_map(), model.scale_count - 1
    if not scales or not all(0 <= k <= last for k in scales):
        raise UsageError(f"expected scales of 0 to {last}; {' '.join(map(str, scales)) or 'none'} came")
    chosen = torch.isin(where, torch.tensor(scales, device=where.device))
    with fixed_draws(seed), torch.inference_mode():
        z = latents_of(model, rows)
        classes = model.base.likeliest(z)
        noise = [model.base.sample(len(z), classes, temperature) for _ in range(draws)]
        return torch.stack([model.decode(torch.where(chosen, e, z)) for e in noise], 1).cpu().numpy()


def energies(model: LatentModel, rows: np.ndarray) -> list[Tensor]:
    """Return the mean square over the channels of each scale, (N, ...) over its space, of dequantised rows."""
    with fixed_draws(0), torch.inference_mode():
        z = torch.cat([model.density.encode(model.spread(x)) for x in batches_of(model, rows)])
        return [part.square().mean(1) for part in model.scales(model.base.standardised(z))]


def energy_strips(rows: np.ndarray, maps: Sequence[Tensor], levels: int) -> bytes:
    """Draw events (N, C, H, W) over the maps of their scales, (at least N, ...) each, the finest first.

    Maps of a framed picture are cut as it is, at its centre.
    """
    count, channels, *sides = rows.shape
    drawn = []
    for part in maps:
        grey = (255 / BRIGHTEST * part[:count]).clamp(0, 255).cpu().numpy()
        times = [math.ceil(side / length) for side, length in zip(sides, grey.shape[1:], strict=True)]
        whole = grey.repeat(times[0], 1).repeat(times[1], 2)
        top, left = ((long - side) // 2 for long, side in zip(whole.shape[1:], sides, strict=True))
        cut = whole[:, None, top : top + sides[0], left : left + sides[1]]
        drawn.append(np.broadcast_to(cut, (count, channels, *sides)))
    shown = np.stack([rows * (255 / (levels - 1)), *drawn])
    return figures.strips(shown, levels=256, row_titles=["data", *(f"scale {k}" for k in range(len(maps)))])

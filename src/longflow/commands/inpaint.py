"""Filling in missing pixels by ascending the likelihood (NICE, section 5.2)."""

import sys
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from longflow import figures
from longflow.commands.datasets import dataset_of
from longflow.commands.draw import kind_of, open_model, output_path
from longflow.commands.evaluate import Split
from longflow.commands.given import refuse_contexts
from longflow.distributions import Dequantised, LatentModel
from longflow.errors import UsageError, choose
from longflow.files import write_bytes
from longflow.seeds import fixed_draws

Mask = Literal["top", "bottom", "left", "right", "random75", "random90"]
"""The part that is hidden: a half of the picture, or so many per cent of its pixels."""

BOUND_DRAWS = 64
"""Importance samples of the bounds that are told."""


def inpaint(
    run: str,
    *,
    mask: Mask = "bottom",
    data: str | None = None,
    split: Split = "test",
    n: int = 8,
    steps: int = 2000,
    rate: float = 1.0,
    seed: int = 0,
    out: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Hide a part of n pictures, fill it in, and write observed, start, result and original side by side.

    Returns the mean log-density of the start, the result and the original, in nats in the units of the levels, and
    what it is (`likelihood`). Of an autoencoder that is a lower bound, from `importance_samples` draws of the code,
    the same draws for all three; what is climbed is the bound from one draw, another one at each step. A likelihood of
    levels (bernoulli, categorical, logistic, grey) has no density to climb, and is refused.

    Args:
        run: A run directory.
        mask: The hidden part: a half, or so many per cent of the pixels.
        data: Another data set than the run's own, a name or a path.
        split: The part of the data.
        n: Number of pictures.
        steps: Steps of ascent.
        rate: Step i has size rate / (100 + i). The paper's is 10, with over 100,000 steps.
        seed: Seed of the mask and the noise.
        out: File to write; by default a name under RUN/samples.
        device: auto, cpu, cuda, cuda:1, ...
    """
    folder, model = open_model(run, device)
    refuse_contexts(folder)
    config = folder.config()
    if kind_of(config) != "picture":
        raise UsageError(f"inpaint expects a model of pictures; {folder} has data of shape {tuple(config['shape'])}")
    if not isinstance(model, Dequantised):
        kind = config["options"]["likelihood"]
        raise UsageError(f"inpaint climbs a density; {folder} has a likelihood of levels ({kind}), which has no slope")
    for name, value in (("n", n), ("steps", steps)):
        if value < 1:
            raise UsageError(f"expected --{name} >= 1; {value} came")
    if not rate > 0:
        raise UsageError(f"expected --rate > 0; {rate} came")
    rows = dataset_of(folder, data).split(split)[:n]
    path = output_path(folder, config, f"inpaint-{mask}-seed{seed}", out)
    with fixed_draws(seed):
        original = torch.as_tensor(rows).to(next(model.parameters()))
        hidden = hide(mask, original)
        start, result = ascend(model, original, hidden, steps=steps, rate=rate)
    columns = [torch.where(hidden, (config["levels"] - 1) / 2, original), start, result, original]
    shown = np.stack([c.floor().clamp(0, config["levels"] - 1).cpu().numpy() for c in columns], 1)
    titles = ["observed", "start", "filled in", "original"]
    write_bytes(path, figures.strips(shown, levels=config["levels"], column_titles=titles))
    draws = BOUND_DRAWS if model.density.likelihood == "lower bound" else 1
    nats = [_mean_nats(model.density, y, draws, seed) for y in (start, result, original + 0.5)]
    if not nats[1] > nats[0]:
        print("longflow: the likelihood fell: the steps are too large, try a lower --rate", file=sys.stderr)
    return {
        "out": str(path),
        "mask": mask,
        "n": len(rows),
        "steps": steps,
        "log_prob": dict(zip(titles[1:], nats, strict=True)),
        "likelihood": model.density.likelihood,
        "importance_samples": draws,
    }


def _mean_nats(density: LatentModel, y: Tensor, draws: int, seed: int) -> float:
    with fixed_draws(seed), torch.inference_mode():
        return density.bound(y, samples=draws).mean().item()


def hide(mask: str, x: Tensor) -> Tensor:
    """Return where pixels are hidden: a boolean tensor of the shape of x, (B, C, H, W), the same for all channels."""
    choose("mask", mask, get_args(Mask))
    n, _, height, width = x.shape
    hidden = torch.zeros(n, 1, height, width, dtype=torch.bool, device=x.device)
    if mask.startswith("random"):
        hidden = torch.rand(hidden.shape, device=x.device) < int(mask.removeprefix("random")) / 100
    else:
        rows, columns = torch.arange(height, device=x.device)[:, None], torch.arange(width, device=x.device)
        half = {
            "top": rows < height / 2,
            "bottom": rows >= height / 2,
            "left": columns < width / 2,
            "right": columns >= width / 2,
        }
        hidden = hidden | half[mask]
    return hidden.expand_as(x)


def ascend(model: Dequantised, original: Tensor, hidden: Tensor, *, steps: int, rate: float) -> tuple[Tensor, Tensor]:
    """Ascend log p in the hidden pixels, from uniform noise, the observed pixels held; return start and result.

        x_H ← x_H + α_i (∂ log p(x) / ∂x_H + ε),  ε ~ N(0, I),  α_i = rate / (100 + i)

    with x in the unit interval and, as the paper adds, projected to it after each step (NICE, section 5.2; its code
    has rate 10 and 111,895 steps, and does not project). A step larger than the square of the density's narrowest
    width only bounces between the walls, so a smaller rate arrives in fewer steps. As the noise is multiplied by α_i
    and not by √(2 α_i) this finds a mode, it does not sample. Where the density is that of an autoencoder, log p is its
    bound from one draw of the code: an unbiased gradient of the bound, of which the falling α_i average the noise.
    """
    levels = model.levels
    held = (original + 0.5) / levels
    x = torch.where(hidden, torch.rand_like(held), held)
    start = x.clone()
    for i in range(steps):
        with torch.enable_grad():
            x.requires_grad_()
            (gradient,) = torch.autograd.grad(model.density.log_prob(levels * x).sum(), x)
        moved = x.detach() + rate / (100 + i) * (gradient + torch.randn_like(gradient))
        x = torch.where(hidden, moved.clamp(0, 1), held)
    return levels * start, levels * x

"""Densities of the plane by i-ResNets and by coupling flows of as many parameters (the i-ResNet paper's figure).

    python benchmarks/toy_densities.py --out OUT [--steps 3000]

Trains both on three toy sets for the same number of steps, tests them, integrates them, and writes OUT/toys.jsonl and
OUT/toys.png. Log-determinants are exact in training and in evaluation. CPU time of one thread is the clock.
"""

import argparse
import json
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from equal_time import commit_that_runs

from longflow.commands.check import check
from longflow.commands.configure import Settings
from longflow.commands.evaluate import evaluate
from longflow.commands.train import train_run
from longflow.data import load as load_data
from longflow.models import load
from longflow.runs import Run
from longflow.training import Recipe
from longflow.training.device import prepare

SETS = ("checkerboard", "eight-gaussians", "rings")
MODELS = {
    "glow": ("affine couplings (Glow)", {"depth": 24, "width": 90}),
    "iresnet": ("i-ResNet", {"blocks": 24, "width": 64, "depth": 3}),
}
RECIPE = Recipe(batch=256, lr=2e-3)
CELLS = 300


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    flags = parser.parse_args()
    prepare("cpu", 1)
    flags.out.mkdir(parents=True, exist_ok=True)
    for name in SETS:
        for model in MODELS:
            one(name, model, flags)
    draw(flags.out)


def one(name, model, flags):
    out = flags.out / f"{name}-{model}"
    if out.exists():
        return
    settings = Settings(data=name, out=str(out), steps=flags.steps, device="cpu", threads=1)
    start = time.process_time()
    run = train_run(model, settings, RECIPE, MODELS[model][1])
    spent = time.process_time() - start
    checked = check(str(out), n=100, device="cpu")
    line = {
        "run": out.name,
        "steps": flags.steps,
        "cpu_s": round(spent, 1),
        "parameters": sum(p.numel() for p in load(run.path).parameters()),
        "options": MODELS[model][1],
        "commit": commit_that_runs(),
        "test": evaluate(str(out), device="cpu"),
        "integral": checked["integral"],
        "integral_resolved": checked["integral_resolved"],
        "certificate": checked.get("certificate"),
        "round_trip": {k: v["round_trip_max_abs"] for k, v in checked["dtypes"].items()},
    }
    with (flags.out / "toys.jsonl").open("a") as lines:
        lines.write(json.dumps(line) + "\n")


def draw(folder):
    figure, axes = plt.subplots(len(SETS), 3, figsize=(9, 9), layout="constrained")
    for row, name in zip(axes, SETS, strict=True):
        data = load_data(name)
        points = data.split("train")
        low, high = points.min(0) - 0.5, points.max(0) + 0.5
        box = (low[0], high[0], low[1], high[1])
        grid = [np.linspace(low[k], high[k], CELLS) for k in range(2)]
        cells = torch.from_numpy(np.stack(np.meshgrid(*grid), -1).reshape(-1, 2)).float()
        counts = np.histogram2d(points[:, 1], points[:, 0], 100, range=[[low[1], high[1]], [low[0], high[0]]])[0]
        row[0].imshow(counts, origin="lower", extent=box)
        row[0].set_title(f"{name}, data")
        for place, model in zip(row[1:], MODELS, strict=True):
            with torch.no_grad():
                heat = torch.cat(
                    [load(Run.open(folder / f"{name}-{model}").path).log_prob(c) for c in cells.split(20000)]
                )
            place.imshow(heat.exp().reshape(CELLS, CELLS).numpy(), origin="lower", extent=box)
            place.set_title(MODELS[model][0])
        for place in row:
            place.set_xticks([])
            place.set_yticks([])
    figure.savefig(folder / "toys.png", dpi=110)


if __name__ == "__main__":
    main()

"""The essay's ablation: reversed against shuffled against mixed (1×1) channels, in equal steps and equal time.

    LONGFLOW_DATA=... python benchmarks/mixing_ablation.py --steps 1500 --out FILE.jsonl [--seeds 0 1 2]

Additive Glow on CIFAR-10, constant learning rate, one thread. Every 100 steps: CPU seconds of training so far and
bits/dim of the averaged weights on the first 1,000 validation images (one draw of uniform dequantisation, the same each
time). A line of JSON for each run.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import torch

from longflow.bijections import adapt
from longflow.commands.evaluate import log_likelihoods
from longflow.data import load as load_data
from longflow.models import CATALOGUE, assemble
from longflow.objectives import MaximumLikelihood
from longflow.training import Batches, Recipe, State, train
from longflow.training.device import prepare
from longflow.units import bits_per_dim

RECIPE = Recipe(batch=64, lr=1e-3, schedule="constant", warmup=100, ema=0.995)
OPTIONS = {"scales": 3, "depth": 6, "width": 32, "coupling": "additive"}
INTERVAL, VALIDATION, ADAPT = 100, 1000, 1024


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    prepare("cpu", 1)
    data = load_data(flags.data)
    for seed in flags.seeds:
        for mixing in ("reverse", "shuffle", "plu"):
            curve, parameters = run(data, mixing, seed, flags.steps)
            line = {
                "mixing": mixing,
                "seed": seed,
                "steps": flags.steps,
                "data": data.name,
                "data_sha256": data.sha256,
                "parameters": parameters,
                "options": OPTIONS,
                "recipe": dataclasses.asdict(RECIPE),
                "torch": torch.__version__,
                "curve": curve,
            }
            with flags.out.open("a") as out:
                out.write(json.dumps(line) + "\n")


def run(data, mixing, seed, steps):
    """Return [step, CPU seconds, validation bits/dim] along a training, and the number of parameters."""
    torch.manual_seed(seed)
    options = CATALOGUE["glow"].resolve(None, {**OPTIONS, "mixing": mixing})
    config = {"model": "glow", "options": options, "shape": list(data.shape), "levels": data.levels}
    model = assemble({**config, "preprocess": "logit"})
    rows = torch.from_numpy(data.split("train"))
    adapt(model, rows[torch.randperm(len(rows))[:ADAPT]].float())
    batches = Batches(rows, None, RECIPE.batch, seed)
    objective = MaximumLikelihood()
    state = State(model, objective, RECIPE)
    curve, spent, start = [], 0.0, time.process_time()
    for progress in train(state, objective, batches, RECIPE, steps, batches.steps_per_epoch):
        if progress.step % INTERVAL == 0:
            spent += time.process_time() - start
            nats = log_likelihoods(state.best_weights.eval(), data.split("validation")[:VALIDATION], seed=0)
            bits = bits_per_dim(torch.from_numpy(nats), data.dims).mean().item()
            curve.append([progress.step, round(spent, 1), round(bits, 4)])
            start = time.process_time()
    return curve, sum(p.numel() for p in model.parameters())


if __name__ == "__main__":
    main()

"""NVAE and the flat VAE on binarised pictures: importance-weighted likelihoods at equal sizes, steps and CPU time.

    LONGFLOW_DATA=... python benchmarks/nvae.py RUN:STEPS ... --out OUT --lines FILE [--draws 1 50 500] [-n TEST]

RUN is a key of RUNS. Each run is trained by `train_run` (the weights of the best validation are kept), then scored on
test pictures by bounds of so many draws of the code. A line for each run goes to FILE. The clock is CPU time.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import torch
from equal_time import commit_that_runs

from longflow.commands.configure import Settings
from longflow.commands.evaluate import batches_of, fixed_draws, log_likelihoods
from longflow.commands.train import train_run
from longflow.data import load as load_data
from longflow.models import load
from longflow.objectives import ELBO, HierarchicalELBO
from longflow.training import Recipe
from longflow.training.device import prepare
from longflow.units import standard_error

RECIPE = Recipe(batch=64, lr=4e-3, ema=0.99)
DIGITS = {"scales": 2, "groups": 2, "latents": 4, "maps": 24, "growth": 1, "halvings": 1, "likelihood": "bernoulli"}
MNIST = {"scales": 2, "groups": 2, "latents": 8, "maps": 8, "growth": 2, "halvings": 2, "likelihood": "bernoulli"}
FLAT = {"depth": 2, "likelihood": "bernoulli"}
BALANCED, PLAIN = HierarchicalELBO(), HierarchicalELBO(kl_warmup=0.0, balancing=False)
RUNS = {
    "digits-nvae": ("nvae", DIGITS, BALANCED, RECIPE),
    "digits-nvae-plain": ("nvae", DIGITS, PLAIN, RECIPE),
    "digits-nvae-batch": ("nvae", {**DIGITS, "norm": "batch"}, BALANCED, RECIPE),
    "digits-nvae-regular": ("nvae", {**DIGITS, "norm": "batch"}, HierarchicalELBO(regularisation=0.01), RECIPE),
    "digits-flat": ("vae", {**FLAT, "latent": 10, "width": 224}, ELBO(), RECIPE),
    "mnist-nvae": ("nvae", MNIST, BALANCED, RECIPE),
    "mnist-flat-fast": ("vae", {**FLAT, "latent": 20, "width": 231}, ELBO(), RECIPE),
    "mnist-flat": ("vae", {**FLAT, "latent": 20, "width": 231}, ELBO(), Recipe(batch=64, lr=1e-3, ema=0.99)),
}


def one(key, steps, flags):
    spec = key.split("-")[0]
    name, options, objective, recipe = RUNS[key]
    folder = flags.out / f"{key}-{steps}-{flags.seed}"
    settings = Settings(data=spec, levels=2, out=str(folder), steps=steps, seed=flags.seed, device="cpu", threads=1)
    start = time.process_time()
    run = train_run(name, settings, recipe, options, dataclasses.asdict(objective))
    spent = time.process_time() - start
    model = load(run.path)
    dataset = load_data(spec, 2)
    rows = dataset.split("test")[: flags.n]
    start = time.process_time()
    bounds = {}
    for draws in flags.draws:
        nats = -log_likelihoods(model, rows, samples=draws)
        bounds[f"iw{draws}"] = {"nats": float(nats.mean()), "stderr": standard_error(nats)}
    spent_scoring = time.process_time() - start
    with fixed_draws(0), torch.inference_mode():
        kl = torch.cat([model.parts(x)["kl"] for x in batches_of(model, rows)]).mean(0)
    metrics = run.metrics()
    return {
        "run": key,
        "data": dataset.name,
        "sha256": dataset.sha256,
        "levels": 2,
        "model": name,
        "options": options,
        "objective": dataclasses.asdict(objective),
        "recipe": dataclasses.asdict(recipe),
        "steps": steps,
        "seed": flags.seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "latents": model.base.dims,
        "train_cpu_s": round(spent, 1),
        "score_cpu_s": round(spent_scoring, 1),
        "best_step": min(metrics, key=lambda r: r["validation_bits_per_dim"])["step"],
        "n": len(rows),
        **bounds,
        "kl_nats": [round(v, 3) for v in kl.tolist()] if name == "nvae" else round(float(kl.sum()), 3),
        "active": int((kl > 0.1).sum()),
        "torch": torch.__version__,
        "commit": commit_that_runs(),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-n", type=int)
    parser.add_argument("--draws", type=int, nargs="+", default=(1, 50, 500))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--lines", type=Path, required=True)
    flags = parser.parse_args()
    prepare("cpu", 1)
    for asked in flags.runs:
        key, steps = asked.split(":")
        line = one(key, int(steps), flags)
        print(json.dumps(line), flush=True)
        with flags.lines.open("a") as lines:
            lines.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()

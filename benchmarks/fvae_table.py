"""VAE, additive Glow and f-VAE of about equal parameters, at equal times: likelihood and sample quality as they train.

    LONGFLOW_DATA=... python benchmarks/fvae_table.py --minutes 1 2 4 6 --out OUT DATA:RUN [DATA:RUN ...]

RUN is a key of RUNS. A run is trained to the steps that fit the first of the minutes of one core's time, measured, then
goes on to the next, at a constant learning rate with averaged weights. At each stage the best weights so far are
scored on the test rows (the importance-weighted bound of K draws for autoencoders, of one draw of the dequantiser and
of 20 for all) and their samples measured. Data are [0, 1), preprocessing the same for all. One line a stage.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import torch
from equal_time import commit_that_runs, steps_for

from longflow.commands.configure import Settings
from longflow.commands.evaluate import evaluate
from longflow.commands.quality import quality
from longflow.commands.train import train_run
from longflow.data import load as load_data
from longflow.models import CATALOGUE
from longflow.runs import Run
from longflow.training import Recipe
from longflow.training.device import prepare

RECIPE = Recipe(batch=64, lr=1e-3, schedule="constant")
GREY, COLOUR = "mnist", "faces32"
RUNS = {
    GREY: {
        "glow-additive": ("glow", {"depth": 8, "width": 64, "coupling": "additive"}),
        "vae": ("vae", {"network": "conv", "width": 9, "latent": 32}),
        "fvae": ("fvae", {"halvings": 2, "layers": 2, "maps": 32, "depth": 6, "width": 64}),
        "glow-half": ("glow", {"depth": 8, "width": 40, "coupling": "additive"}),
        "fvae-half": ("fvae", {"halvings": 2, "layers": 2, "maps": 20, "depth": 6, "width": 32}),
    },
    COLOUR: {
        "glow-additive": ("glow", {"depth": 8, "width": 64, "coupling": "additive"}),
        "vae": ("vae", {"network": "conv", "width": 16, "latent": 64}),
        "fvae": ("fvae", {"halvings": 2, "layers": 2, "maps": 32, "depth": 2, "width": 56}),
    },
}
SAMPLES = 1000


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--minutes", type=float, nargs="+", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    prepare("cpu", 1)
    for pair in flags.runs:
        one(pair, flags)


def one(pair, flags):
    spec, key = pair.rsplit(":", 1)
    name, options = RUNS[Path(spec).stem][key]
    options = CATALOGUE[name].resolve(None, options)
    dataset = load_data(spec)
    per_minute = steps_for(1.0, name, options, RECIPE, dataset, "unit")
    out, cpu = flags.out / f"{Path(spec).stem}-{key}-{flags.seed}", 0.0
    for stage, minutes in enumerate(flags.minutes):
        temperatures = (1.0, 0.8) if minutes == flags.minutes[-1] else (1.0,)
        settings = Settings(
            data=spec, out=str(out), steps=int(per_minute * minutes), seed=flags.seed, device="cpu", threads=1,
            preprocess="unit", resume=stage > 0,
        )  # fmt: skip
        start = time.process_time()
        run = train_run(name, settings, RECIPE, options)
        cpu += time.process_time() - start
        line = {
            "run": out.name,
            "minutes": minutes,
            "cpu_s": round(cpu, 1),
            "steps": settings.steps,
            "images": settings.steps * RECIPE.batch,
            "parameters": sum(v.numel() for v in Run(run.path).weights().values()),
            "options": options,
            "recipe": dataclasses.asdict(RECIPE),
            "seed": flags.seed,
            "torch": torch.__version__,
            "commit": commit_that_runs(),
            "test": evaluate(str(run.path), device="cpu"),
            "test_bound": evaluate(str(run.path), device="cpu", n=1000, importance_samples=flags.draws),
            "quality": {t: quality(str(run.path), n=SAMPLES, temperature=t) for t in temperatures},
        }
        with (flags.out / "fvae_table.jsonl").open("a") as lines:
            lines.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()

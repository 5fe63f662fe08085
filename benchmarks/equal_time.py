"""Models at equal time: train each for so many minutes of one core's time, evaluate, and write the figures.

    LONGFLOW_DATA=... python benchmarks/equal_time.py --minutes 10 --out OUT DATA:RUN [DATA:RUN ...]

RUN is a key of RUNS. The number of steps is what fits the minutes, measured over thirty steps first, so that the
schedule knows its end and the run can be repeated with --steps. CPU time is the clock, not wall time: another job
beside it then changes the figures little. Each run's folder is under OUT, and a line for each in OUT/equal_time.jsonl.
"""

import argparse
import dataclasses
import json
import resource
import subprocess
import time
from pathlib import Path

import torch

import longflow
from longflow.bijections import adapt
from longflow.commands.configure import Settings
from longflow.commands.evaluate import evaluate
from longflow.commands.train import train_run
from longflow.data import load as load_data
from longflow.models import CATALOGUE, assemble
from longflow.objectives import MaximumLikelihood
from longflow.runs import Run
from longflow.training import Batches, Recipe, State, train
from longflow.training.device import prepare

SMALL = Recipe(batch=64, lr=1e-3)
RUNS = {
    "nice": ("nice", {}, Recipe(batch=128, lr=1e-3)),
    "realnvp": ("realnvp", {"width": 16, "blocks": 1, "norm": "batch"}, SMALL),
    "iresnet": ("iresnet", {"scales": 2, "blocks": 8, "width": 64, "terms": 10}, SMALL),
    "iresnet-unbiased": (
        "iresnet",
        {
            "scales": 2,
            "blocks": 8,
            "width": 64,
            "terms": 2,
            "roulette": "poisson",
            "activation": "lipswish",
            "coefficient": 0.98,
        },
        SMALL,
    ),
    "iresnet-elu": (
        "iresnet",
        {"scales": 2, "blocks": 8, "width": 64, "terms": 2, "roulette": "poisson", "coefficient": 0.98},
        Recipe(batch=64, lr=3e-3),
    ),
    "residualflow": ("residualflow", {"scales": 3, "blocks": 4, "width": 64}, SMALL),
    "glow-additive": ("glow", {"depth": 8, "width": 64, "coupling": "additive"}, SMALL),
    "glow-affine": ("glow", {"depth": 8, "width": 64, "coupling": "affine"}, SMALL),
}
WARM, TIMED = 5, 30


def steps_for(minutes, name, options, recipe, dataset, preprocess):
    """Measure the CPU time of a step; return how many fit, leaving 4 % for validation."""
    config = {"model": name, "options": options, "shape": list(dataset.shape), "levels": dataset.levels}
    model = assemble({**config, "preprocess": preprocess})
    rows = torch.from_numpy(dataset.split("train"))
    batches = Batches(rows, None, recipe.batch, 0)
    adapt(model, batches(0)[0])
    own = CATALOGUE[name].objective
    objective = MaximumLikelihood() if own is None else own()
    loop = train(State(model, objective, recipe), objective, batches, recipe, WARM + TIMED, batches.steps_per_epoch)
    for progress in loop:
        if progress.step == WARM:
            start = time.process_time()
    return int(0.96 * 60 * minutes * TIMED / (time.process_time() - start))


def commit_that_runs():
    """Return the commit of the imported package, "-dirty" where its files were changed; "" for a copy outside git."""
    folder = Path(longflow.__file__).parent
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude", "*"], cwd=folder, capture_output=True, text=True
    )
    return told.stdout.strip()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preprocess", default="logit")
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    prepare("cpu", 1)
    for pair in flags.runs:
        one(pair, flags)


def one(pair, flags):
    spec, key = pair.split(":")
    name, options, recipe = RUNS[key]
    options = CATALOGUE[name].resolve(None, options)
    dataset = load_data(spec)
    steps = flags.steps or steps_for(flags.minutes, name, options, recipe, dataset, flags.preprocess)
    out = flags.out / f"{Path(spec).stem}-{key}-{flags.seed}"
    settings = Settings(
        data=spec, out=str(out), steps=steps, seed=flags.seed, device="cpu", threads=1, preprocess=flags.preprocess
    )
    wall, cpu = time.monotonic(), time.process_time()
    run = train_run(name, settings, recipe, options)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    line = {
        "run": out.name,
        "minutes": flags.minutes,
        "steps": steps,
        "images": steps * recipe.batch,
        "wall_s": round(wall, 1),
        "cpu_s": round(cpu, 1),
        "images_per_cpu_s": round(steps * recipe.batch / cpu, 1),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "parameters": sum(v.numel() for v in Run(run.path).weights().values()),
        "options": options,
        "recipe": dataclasses.asdict(recipe),
        "preprocess": flags.preprocess,
        "seed": flags.seed,
        "torch": torch.__version__,
        "commit": commit_that_runs(),
        "validation": [[r["step"], round(r["validation_bits_per_dim"], 4)] for r in run.metrics()],
        "test": evaluate(str(run.path), device="cpu"),
    }
    with (flags.out / "equal_time.jsonl").open("a") as lines:
        lines.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()

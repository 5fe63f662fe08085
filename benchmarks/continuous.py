"""Continuous flows of a table: by likelihood (ffjord) and by flow matching (fm), the same field.

    python benchmarks/continuous.py TABLE.npy --model ffjord --steps 600 [--out OUT] [--seed 0] [--width 64] [--depth 3]

Adds a line to OUT/continuous.jsonl: nats of the test split with the standard error over its rows, what finer steps of
the solver change of them, CPU time of one thread for training (with its validations) and for the evaluation, and how
often a solve asks for the field in each. The splits are those of the library (`longflow train --data TABLE.npy`).
"""

import argparse
import json
import shlex
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from equal_time import commit_that_runs

from longflow.commands.configure import Settings
from longflow.commands.datasets import dataset_of
from longflow.commands.evaluate import drawn_likelihoods, measure
from longflow.commands.train import train_run
from longflow.models import load
from longflow.training import Recipe
from longflow.units import standard_error

SOLVED_IN_TRAINING = {"ffjord": {"solver_steps": 4}, "fm": {}}
TRAINING = {"ffjord": 16, "fm": 1}
"""Evaluations of the field for each row of a training step: four steps of rk4, and a regression."""


def clocked(work):
    start = time.process_time()
    found = work()
    return found, round(time.process_time() - start, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table")
    parser.add_argument("--model", choices=sorted(SOLVED_IN_TRAINING), required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/tables"))
    for name, default in (("steps", 600), ("seed", 0), ("width", 64), ("depth", 3), ("batch", 256), ("rows", 1000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--lr", type=float, default=2e-3)
    given = parser.parse_args()
    options = {"width": given.width, "depth": given.depth, **SOLVED_IN_TRAINING[given.model]}
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data=given.table, steps=given.steps, seed=given.seed, threads=1, out=f"{folder}/run")
        recipe = Recipe(batch=given.batch, lr=given.lr)
        run, training = clocked(lambda: train_run(given.model, settings, recipe, options))
        dataset, model = dataset_of(run), load(run.path)
        rows = dataset.split("test")[: given.rows]
        nats, evaluation = clocked(lambda: drawn_likelihoods(model, rows)[0])
        told = measure(run, model, dataset, n=len(rows))
    line = {
        "model": given.model,
        "command": shlex.join(["python", *sys.argv]).replace(given.table, Path(given.table).name),
        "commit": commit_that_runs(),
        "torch": torch.__version__,
        "data": Path(given.table).name,
        "data_sha256": dataset.sha256,
        "seed": given.seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "test_rows": len(rows),
        "test_nats": float(np.mean(nats)),
        "test_nats_stderr": standard_error(nats),
        "training_cpu_s": training,
        "evaluation_cpu_s": evaluation,
        "evaluations_of_the_field": {"training": TRAINING[given.model], "evaluation": told["log_det"]["evaluations"]},
        "log_det": told["log_det"],
        "discretisation": told["discretisation"],
        "round_trip_max_abs": told["roundtrip_max_abs"],
    }
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "continuous.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line))


if __name__ == "__main__":
    main()

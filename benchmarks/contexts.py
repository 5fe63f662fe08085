"""What two columns of a table say of the others: a conditional density beside the marginal one of the same columns.

    LONGFLOW_DATA=DATA python benchmarks/contexts.py --out OUT [--steps 1500] [--seeds 0 1]

Combined Cycle Power Plant (UCI; 9,568 hours): temperature AT, vacuum V, pressure AP, humidity RH, output PE. Trains
p(V, RH, PE | AT, AP) and p(V, RH, PE) by the same model and recipe, through the command line, on the same split, and
writes OUT/contexts.jsonl. Nats are log-densities of a test row's three numbers, in the units of the table. V takes 634
values and the others are rounded to 0.01, so that every density of them is unbounded: the difference is what counts.
"""

import argparse
import contextlib
import io
import json
import math
import os
import shlex
from pathlib import Path

import numpy as np
import torch
from equal_time import commit_that_runs

from longflow.cli import main as longflow
from longflow.commands.datasets import dataset_of
from longflow.commands.evaluate import log_likelihoods
from longflow.models import load
from longflow.runs import Run
from longflow.units import standard_error

COLUMNS = ("AT", "V", "AP", "RH", "PE")
CONTEXTS = ("AT", "AP")
MODEL = ("nsf", "--layers", "3", "--hidden", "64", "--blocks", "1", "--batch", "256", "--lr", "0.001")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    flags = parser.parse_args()
    common = {"commit": commit_that_runs(), "torch": torch.__version__, "steps": flags.steps}
    rows = np.load(Path(os.environ["LONGFLOW_DATA"]) / "tabular" / "power_plant.npy")
    flags.out.mkdir(parents=True, exist_ok=True)
    others = [k for k, name in enumerate(COLUMNS) if name not in CONTEXTS]
    table(flags.out / "power.csv", COLUMNS, rows)
    table(flags.out / "others.csv", [COLUMNS[k] for k in others], rows[:, others])
    lines = []
    for seed in flags.seeds:
        how = ["--steps", str(flags.steps), "--seed", str(seed), "--threads", "1"]
        given, plain = (
            trained(flags.out / f"{name}-{seed}", [*MODEL, "--data", str(flags.out / file), *more, *how])
            for name, file, more in (
                ("given", "power.csv", ["--context", ",".join(CONTEXTS)]),
                ("marginal", "others.csv", []),
            )
        )
        lines += [given | {"seed": seed}, plain | {"seed": seed}, gain(flags.out, seed) | {"seed": seed}]
    (flags.out / "contexts.jsonl").write_text("".join(json.dumps(line | common) + "\n" for line in lines))


def table(path, columns, rows):
    lines = (",".join(f"{value:.9g}" for value in row) for row in rows)
    path.write_text("\n".join([",".join(columns), *lines]) + "\n")


def trained(out, arguments):
    """Train through the command line; return what it says of the test split, in nats."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert longflow(["train", *arguments, "--out", str(out), "--json"]) == 0
    found = json.loads(said.getvalue())
    dims = len(COLUMNS) - len(CONTEXTS)
    nats = {
        name: [-value["bits_per_dim"] * dims * math.log(2), value["stderr_bits_per_dim"] * dims * math.log(2)]
        for name, value in {"test_nats": found, **found["baselines"]}.items()
    }
    kept = ("data_sha256", "n", "likelihood", "parameters", "roundtrip_max_abs")
    contexts = Run(out).config()["data"]["context_sha256"]
    # Folders of the machine are no part of the command.
    command = shlex.join(["longflow", "train", *(Path(a).name if os.sep in a else a for a in arguments)])
    return {
        "what": out.name,
        "command": command,
        **nats,
        **{key: found[key] for key in kept},
        "context_sha256": contexts,
    }


def gain(out, seed):
    """Return the difference of the two, row by row, and what is left of it where contexts go to other rows."""
    given, plain = (Run(out / f"{name}-{seed}") for name in ("given", "marginal"))
    events = dataset_of(given).events("test")
    other = log_likelihoods(load(plain.path), dataset_of(plain).split("test"))
    shuffled = type(events)(events.rows, events.contexts[np.random.default_rng(0).permutation(len(events))])
    told = {}
    for name, rows in (("gain", events), ("gain_of_shuffled_contexts", shuffled)):
        more = log_likelihoods(load(given.path), rows) - other
        told[name] = [float(more.mean()), standard_error(more)]
    return {"what": f"difference-{seed}", "unit": "nats, mean and standard error over test rows", **told}


if __name__ == "__main__":
    main()

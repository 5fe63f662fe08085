"""Digits clustered by the one-step clustering autoencoder, beside k-means on their pixels.

    python benchmarks/cluster_digits.py digits --seeds 5 --out OUT
    LONGFLOW_DATA=... python benchmarks/cluster_digits.py mnist|mnist-essay --seeds 3 --out OUT

`digits` trains on all 1,797 pictures, as clustering sees no labels, and assigns those; `digits-split` and `mnist` train
on the training rows and assign the test rows, too (`mnist-essay` by the essay's convolutions). The weights
are the average of the end: nothing is chosen by labels or by validation. `nats` is the bound on log p(x), of which the
best of several seeds could be chosen. One thread; a line for each seed goes to OUT/clusters.jsonl, the pictures of the
first to OUT/clusters-*.png.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import torch
from equal_time import commit_that_runs
from sklearn.cluster import KMeans

from longflow.commands.cluster import memberships, strips
from longflow.commands.evaluate import log_likelihoods
from longflow.data import load as load_data
from longflow.models import CATALOGUE, assemble
from longflow.objectives import ELBO
from longflow.quality import agreement, occupancy
from longflow.training import Batches, Recipe, State, train
from longflow.training.device import prepare

RECIPE = Recipe(batch=100, lr=1e-3, schedule="constant")
SETS = {
    "digits": ("digits", "digits", 600),
    "digits-split": ("digits", "digits", 640),
    "mnist": ("mnist", "mnist", 15),
    "mnist-essay": ("mnist", "essay", 50),
}
"""The data, the preset, and epochs."""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("which", choices=SETS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    prepare("cpu", 1)
    flags.out.mkdir(parents=True, exist_ok=True)
    name, preset, epochs = SETS[flags.which]
    dataset = load_data(name)
    rows, labels = dict(dataset.splits), dict(dataset.labels)
    if flags.which == "digits":
        rows = {"train": np.concatenate(list(rows.values()))}
        labels = {"train": np.concatenate(list(labels.values()))}
    for seed in range(flags.first, flags.first + flags.seeds):
        one(flags, dataset, preset, rows, labels, seed, flags.epochs or epochs)


def one(flags, dataset, preset, rows, labels, seed, epochs):
    options = CATALOGUE["clustervae"].resolve(preset, {})
    config = {"model": "clustervae", "options": options, "shape": list(dataset.shape)}
    torch.manual_seed(seed)
    model = assemble({**config, "levels": dataset.levels, "preprocess": "unit"})
    batches = Batches(torch.from_numpy(rows["train"]), None, RECIPE.batch, seed)
    state, steps = State(model, ELBO(), RECIPE), epochs * batches.steps_per_epoch
    start = time.process_time()
    for progress in train(state, ELBO(), batches, RECIPE, steps, batches.steps_per_epoch):
        if progress.step % (steps // 10) == 0:
            print(flags.which, seed, progress.step, round(progress.loss, 4), flush=True)
    spent = time.process_time() - start
    model = state.best_weights.eval()
    start = time.process_time()
    plain = KMeans(options["clusters"], n_init=3, random_state=seed).fit(flat(rows["train"]))
    line = {
        "data": flags.which,
        "seed": seed,
        "epochs": epochs,
        "cpu_s": round(spent, 1),
        "kmeans_cpu_s": round(time.process_time() - start, 1),
        "options": options,
        "recipe": dataclasses.asdict(RECIPE),
        "commit": commit_that_runs(),
    }
    for split in rows.keys() & {"train", "test"}:
        p = memberships(model, rows[split])
        line[split] = {
            "rows": len(p),
            "nats": float(log_likelihoods(model, rows[split]).mean()),
            **measured(p.argmax(1), labels[split], p.shape[1]),
            "mean_probability": float(p.max(1).mean()),
            "kmeans": measured(plain.predict(flat(rows[split])), labels[split], p.shape[1]),
        }
        if seed == 0:
            picture = strips(model, rows[split], p, dataset.levels)
            (flags.out / f"clusters-{flags.which}-{split}.png").write_bytes(picture)
    print({k: line[k] for k in line if k in ("train", "test", "cpu_s")}, flush=True)
    with (flags.out / "clusters.jsonl").open("a") as lines:
        lines.write(json.dumps(line) + "\n")


def measured(found, classes, count):
    told = dataclasses.asdict(agreement(found, classes))
    del told["matching"]
    return {**told, **dataclasses.asdict(occupancy(found, count))}


def flat(rows):
    return rows.reshape(len(rows), -1).astype(np.float32)


if __name__ == "__main__":
    main()

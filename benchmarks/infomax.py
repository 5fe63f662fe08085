"""What labels can be read from Deep InfoMax's codes, beside pixels and an untrained encoder, and by each of its terms.

    LONGFLOW_DATA=... python benchmarks/infomax.py --out benchmarks/results/latent/infomax.jsonl
    LONGFLOW_DATA=... python benchmarks/infomax.py --prices [--data fashion-mnist] --out .../infomax-prices.jsonl

Trains on 6,000 pictures without labels and probes 2,000 test pictures: a line for each way and seed, on
one thread. Linear probes see 1,000 labels, neighbours those of all 6,000. `--prices` goes through weights of KL
instead, and probes 2,000 validation pictures, so that none is chosen by test pictures.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import torch
from equal_time import commit_that_runs

from longflow.adaptive import settle
from longflow.commands.probe import coded
from longflow.commands.represent import terms_of
from longflow.data import load as load_data
from longflow.families import MutualInformation
from longflow.families.infomax import divergence_bound
from longflow.models import CATALOGUE, assemble
from longflow.quality import Labelled
from longflow.quality.probes import probe
from longflow.training import Batches, Recipe, State, train
from longflow.training.device import prepare

ROWS, TEST, SEEDS = 6000, 2000, (0, 1, 2)
RECIPE = Recipe(batch=100, warmup=10, ema=0.0)
WAYS = {
    "both": (MutualInformation(), "fixed", 15),
    "both, learned features": (MutualInformation(), "learned", 15),
    "both, 5 epochs": (MutualInformation(), "fixed", 5),
    "global, 5 epochs": (MutualInformation(beta_local=0.0), "fixed", 5),
    "local, 5 epochs": (MutualInformation(alpha=0.0), "fixed", 5),
}
"""Objective, what discriminators do to features, epochs."""
PRICES = {
    f"{features}, gamma {gamma}": (MutualInformation(gamma=gamma), features, 15)
    for features, gammas in {"fixed": (1e-2, 3e-3, 1e-3, 3e-4), "learned": (1e-2, 1e-3)}.items()
    for gamma in gammas
}


def fresh(shape, seed, features):
    torch.manual_seed(seed)
    config = {
        "model": "infomax",
        "options": CATALOGUE["infomax"].resolve("mnist", {"features": features}),
        "shape": list(shape),
    }
    return assemble({**config, "levels": 256, "preprocess": "unit"})


def trained(model, rows, objective, seed, epochs):
    batches = Batches(torch.from_numpy(rows), None, RECIPE.batch, seed)
    state = State(model, objective, RECIPE)
    steps = epochs * batches.steps_per_epoch
    for _ in train(state, objective, batches, RECIPE, steps, batches.steps_per_epoch):
        pass


def rounded(one):
    return {name: round(value, 5) for name, value in dataclasses.asdict(one).items()}


def lines(given):
    dataset, ways = load_data(given.data), PRICES if given.prices else WAYS
    ways = {name: ways[name] for name in given.ways or ways}
    probed = "validation" if given.prices else "test"
    few = np.random.default_rng(0).permutation(len(dataset.split("train")))[:ROWS]
    x, y = dataset.split("train")[few], dataset.labels["train"][few]
    test, labels = dataset.split(probed)[:TEST], dataset.labels[probed][:TEST]
    facts = {"data": given.data, "probed": probed, "data_sha256": dataset.sha256, "commit": commit_that_runs()}
    flat = [Labelled(rows.reshape(len(rows), -1), own) for rows, own in ((x, y), (test, labels))]
    if not given.ways:
        yield {"way": "pixels", "seed": 0, **rounded(probe(*flat)), **facts}
    untrained = {} if given.ways else {"untrained": (None, "fixed", 0)}
    for name, (objective, features, epochs) in {**untrained, **ways}.items():
        for seed in SEEDS:
            model, start = fresh(x.shape[1:], seed, features), time.process_time()
            if objective is not None:
                trained(model, x, objective, seed, epochs)
            seconds = time.process_time() - start
            settle(model, torch.from_numpy(x[:2048]).float())
            model.eval()
            encode = coded(model)
            found = probe(Labelled(encode(x), y), Labelled(encode(test), labels))
            terms = terms_of(model, test, None, 0)
            yield {
                "way": name,
                "seed": seed,
                **rounded(found),
                **{f"js_bound_{key}": round(divergence_bound(terms[key]), 5) for key in ("global", "local")},
                "kl": round(terms["kl"], 3),
                "cpu_s": round(seconds, 1),
                **facts,
            }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prices", action="store_true")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--ways", nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    prepare("cpu", 1)
    with given.out.open("a") as out:
        for line in lines(given):
            print(json.dumps(line), file=out, flush=True)
            told = ("way", "seed", "linear", "cosine", "euclidean", "js_bound_global", "js_bound_local", "kl", "cpu_s")
            print(*(line.get(key) for key in told), flush=True)


if __name__ == "__main__":
    main()

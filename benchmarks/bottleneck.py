"""The information bottleneck on few labels: error, cross-entropy, calibration and rate by the weight of the rate.

    LONGFLOW_DATA=... python benchmarks/bottleneck.py --out benchmarks/results/latent/vib.jsonl
    python benchmarks/bottleneck.py --draw benchmarks/results/latent/vib.jsonl --out docs/images/vib.png

Trains on 2,000 MNIST digits, the same for all, and measures the 10,000 test digits, a line for each weight and seed, on
one thread. `plain` is the same network without noise. The second command draws rate against cross-entropy.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from equal_time import commit_that_runs

from longflow.commands.represent import measure_codes
from longflow.data import load as load_data
from longflow.families import InformationBottleneck
from longflow.figures import style
from longflow.models import CATALOGUE, assemble
from longflow.training import Batches, Recipe, State, train
from longflow.training.device import prepare

ROWS, EPOCHS, SEEDS = 2000, 60, (0, 1, 2)
BETAS = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
TARGETS = (10.0, 20.0)
RECIPE = Recipe(batch=100, ema=0.0)
DRAWS = 12


def trained(rows, labels, objective, seed, *, noisy=True):
    """Return a model and the CPU seconds of its training."""
    torch.manual_seed(seed)
    config = {"model": "vib", "options": CATALOGUE["vib"].resolve("small", {}), "shape": list(rows.shape[1:])}
    model = assemble({**config, "levels": 256, "preprocess": "unit"})
    if not noisy:
        model.bottleneck.draw = model.bottleneck.code.mean
    batches = Batches(torch.from_numpy(rows), torch.from_numpy(labels), RECIPE.batch, seed)
    state = State(model, objective, RECIPE)
    start = time.process_time()
    steps = EPOCHS * batches.steps_per_epoch
    for _ in train(state, objective, batches, RECIPE, steps, batches.steps_per_epoch):
        pass
    return model.eval(), time.process_time() - start


def lines(chosen):
    """Yield a line for each way of training and each seed."""
    dataset = load_data("mnist")
    train_rows, train_labels = (part["train"] for part in (dataset.splits, dataset.labels))
    few = np.random.default_rng(0).permutation(len(train_rows))[:ROWS]
    ways = {"plain": (InformationBottleneck(beta=0.0), False)}
    ways |= {f"beta {beta:g}": (InformationBottleneck(beta=beta), True) for beta in BETAS}
    ways |= {f"target {nats:g} nats": (InformationBottleneck(beta=0.0, target=nats), True) for nats in TARGETS}
    for name, (objective, noisy) in ways.items():
        if chosen and name not in chosen:
            continue
        for seed in SEEDS:
            model, seconds = trained(train_rows[few], train_labels[few], objective, seed, noisy=noisy)
            found = [
                measure_codes({"model": "vib"}, model, dataset, split="test", n=None, draws=draws, seed=0)
                for draws in (0, DRAWS)
            ]
            keys = ("error", "cross_entropy", "calibration_error")
            weight = objective.beta + float(model.multiplier.added)
            yield {
                "way": name,
                "seed": seed,
                "weight": weight,
                **{key: round(found[0][key], 5) for key in keys},
                **{f"{key}_of_{DRAWS}_draws": round(found[1][key], 5) for key in keys if noisy},
                "noisy_cross_entropy": round(found[0]["noisy_cross_entropy"], 5),
                "rate_bits": round(found[0]["rate_bits"], 3) if noisy else None,
                "cpu_s": round(seconds, 1),
                "data_sha256": dataset.sha256,
                "commit": commit_that_runs(),
            }


def plane(found):
    """Return the information plane: what codes say of pictures against how badly they tell labels, for each weight."""
    figure = style.sheet(5.8, 4.0)
    axes = style.dress(
        figure.subplots(), x="bits of the picture in a code, at most", y="bits of cross-entropy of labels"
    )
    for key, colour, name in (
        ("noisy_cross_entropy", style.ACCENT, "one noisy code"),
        ("cross_entropy", style.WARM, "the mean code"),
    ):
        ways = [name for name in dict.fromkeys(line["way"] for line in found) if name.startswith("beta")]
        groups = [np.array([(one["rate_bits"], one[key]) for one in found if one["way"] == way]) for way in ways]
        centres, spread = (np.stack([take(group) for group in groups]) for take in (_mean, _deviation))
        axes.errorbar(
            *centres.T, xerr=spread[:, 0], yerr=spread[:, 1], color=colour, marker="o", markersize=5, label=name
        )
        if key == "cross_entropy":
            for way, (rate, bits) in zip(ways, centres, strict=True):
                label = way.replace("beta", "β")
                axes.annotate(
                    label, (rate, bits), (0, -22), textcoords="offset points", ha="center", fontsize=style.SMALL
                )
    plain = np.mean([one["cross_entropy"] for one in found if one["way"] == "plain"])
    axes.axhline(plain, color=style.MUTED, linewidth=0.8, linestyle=(0, (3, 3)), label="the network without noise")
    axes.set_xscale("log")
    axes.set_xticks((10, 100, 1000), ("10", "100", "1,000"))
    axes.set_xlim(4, 4000)
    axes.set_ylim(0, 0.95)
    axes.legend(frameon=False, fontsize=style.SMALL)
    return style.to_png(figure)


def _mean(group):
    return group.mean(0)


def _deviation(group):
    return group.std(0, ddof=1)


def main():
    """Run, or draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", type=Path)
    parser.add_argument("--ways", nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    if given.draw:
        given.out.write_bytes(plane([json.loads(line) for line in given.draw.read_text().splitlines()]))
        return
    prepare("cpu", 1)
    with given.out.open("a") as out:
        for line in lines(given.ways):
            print(json.dumps(line), file=out, flush=True)
            print(line["way"], line["seed"], line["error"], line["cross_entropy"], line["rate_bits"], line["cpu_s"])


if __name__ == "__main__":
    main()

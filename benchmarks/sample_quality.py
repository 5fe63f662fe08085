"""Which measure of samples catches which fault? Real rows are spoilt on purpose and measured as samples are.

    python benchmarks/sample_quality.py --data digits [--run RUN ...] --out OUT/quality.jsonl

Half of the test rows (at most 2,000) is what samples are compared to; the faults are put on the other half, but for the
copies, which are training rows. A line of the file is one fault in one space of features: every measure, its floor (up
to five disjoint draws of training rows, which the features were not made from), and by which measures it is caught:
worse than the floor by more than five of the floor's deviations. Samples of runs of the same data are measured beside
them, at temperatures 1 and 0.7.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import longflow
from longflow.commands.draw import draw
from longflow.commands.quality import material
from longflow.data import load
from longflow.quality import extractor_of, summarise

WORSE = {
    "frechet_distance": 1, "kernel_distance": 1, "precision": -1, "recall": -1, "density": -1, "coverage": -1,
    "class_entropy": -1,
}  # fmt: skip
KINDS = ("classifier", "random", "pca")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="digits")
    parser.add_argument("--run", nargs="*", default=[])
    parser.add_argument("--cache", default=tempfile.gettempdir())
    parser.add_argument("--out", required=True)
    asked = parser.parse_args()
    dataset = load(asked.data)
    train = dataset.split("train")
    random = np.random.default_rng(0)
    order = random.permutation(len(dataset.split("test")))
    n = min(2000, len(order) // 2)
    held_out, other = (dataset.split("test")[rows] for rows in (order[:n], order[n:]))
    spoilt = faults(dataset, other, dataset.labels["test"][order[n:]], n, random)
    for run in asked.run:
        model = longflow.load(run)
        for temperature in (1.0, 0.7):
            drawn = draw(model, n, temperature, 0)
            spoilt[f"{Path(run).name}, T = {temperature:g}"] = drawn[np.isfinite(drawn).reshape(n, -1).all(1)]
    for kind in KINDS:
        features, facts = extractor_of(material(dataset), kind, Path(asked.cache))
        print(f"\n{asked.data}, {kind}, {facts['sha256'][:12]}, n = {n}")
        for name, samples in spoilt.items():
            start = time.process_time()
            found = summarise(samples, held_out[: len(samples)], train, features, fresh=train[1::2])
            caught = verdicts(found)
            record = {"data": asked.data, "fault": name, "extractor": facts, "caught_by": caught, **found}
            record |= {"not_finite": n - len(samples), "cpu_s": round(time.process_time() - start, 1)}
            with open(asked.out, "a") as file:
                file.write(json.dumps(record) + "\n")
            print(line(name, found, caught), flush=True)


def faults(dataset, rows, labels, n, random):
    """Return n rows for each fault, by its name."""
    top, train = dataset.levels - 1, dataset.split("train")

    def level(x):
        return np.clip(np.round(x), 0, top).astype(np.float32)

    real = rows[:n].astype(np.float32)
    copied = train[random.permutation(len(train))[:n]].astype(np.float32)
    without = rows[labels != 9]
    return {
        "none": real,
        "noise, 5%": level(real + random.normal(size=real.shape) * 0.05 * top),
        "noise, 20%": level(real + random.normal(size=real.shape) * 0.2 * top),
        "blur, light": level(0.5 * real + 0.5 * blurred(real)),
        "blur": level(blurred(real)),
        "no nines": np.concatenate([without, without])[:n].astype(np.float32),
        "25 rows repeated": real[np.arange(n) % 25],
        "copies": copied,
        "copies, 2% noise": level(copied + random.normal(size=real.shape) * 0.02 * top),
        "pure noise": random.integers(0, top + 1, size=real.shape).astype(np.float32),
    }


def blurred(x):
    """Return pictures smoothed by the binomial kernel (1 2 1)/4 both ways, borders repeated."""
    weights = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).expand(x.shape[1], 1, 3, 3) / 16
    padded = F.pad(torch.from_numpy(x), (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, weights, groups=x.shape[1]).numpy()


def verdicts(found):
    """Return the measures that are worse than the floor by more than five of its deviations."""
    caught = []
    for name, sign in WORSE.items():
        value = found["measures"].get(name)
        if value and sign * (value["samples"] - value["floor"]) > 5 * value["floor_sd"]:
            caught.append(name)
    near = found["nearest_training_row"]
    if near["near_share"] > 0.01 + 5 * near["near_share_stderr"]:
        caught.append("nearest_training_row")
    return caught


def line(name, found, caught):
    marks = [
        f"{found['measures'][m]['samples']:8.3f}{'!' if m in caught else ' '}" if m in found["measures"] else " " * 9
        for m in WORSE
    ]
    near = found["nearest_training_row"]
    mark = "!" if "nearest_training_row" in caught else " "
    return f"{name:<20}{' '.join(marks)}  {near['ratio']:.2f} {near['near_share']:6.1%}{mark} {near['copies']:6.1%}"


if __name__ == "__main__":
    main()

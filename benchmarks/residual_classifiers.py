"""i-ResNet classifiers by the largest norm c of a layer, beside the same network without a bound, and hybrids.

    LONGFLOW_DATA=... python benchmarks/residual_classifiers.py classify --steps 1500 --out FILE
    LONGFLOW_DATA=... python benchmarks/residual_classifiers.py paper --steps 600 --out FILE
    LONGFLOW_DATA=... python benchmarks/residual_classifiers.py hybrid --steps 600 --out FILE

`classify` trains on Fashion-MNIST by cross-entropy alone and writes, for each c, the test error, the certificate on
test images, the error after 20 of Picard's iterations in each block (in [0, 1]), and the iterations to 1e-6.
`paper` does so with the preset of the paper's classifier, of fewer blocks, with and without its padding.
`hybrid` trains density and classifier together for three λ and writes accuracy and bits/dim. One seed, one thread.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
from equal_time import commit_that_runs

import longflow
from longflow.bijections import Residual, adapt, settle
from longflow.bijections.fixed_point import FixedPoint
from longflow.commands.certificate import certificate
from longflow.commands.evaluate import log_likelihoods
from longflow.constraints import tighten
from longflow.data import load as load_data
from longflow.errors import InversionError
from longflow.models import assemble
from longflow.nets.lipschitz import LipschitzLayer
from longflow.objectives import ClassLikelihood
from longflow.training import Batches, Recipe, State, train
from longflow.training.device import prepare
from longflow.units import bits_per_dim, standard_error
from longflow.values import values_only

OPTIONS = {"scales": 2, "blocks": 4, "width": 64}
PAPER = {**longflow.models.CATALOGUE["iresnet"].preset("classifier"), "blocks": 2}
RECIPE = Recipe(batch=64, lr=2e-3)
COEFFICIENTS = (0.5, 0.7, 0.9, 0.97, None)
SETTLING = 32
"""Training batches of which statistics of batches are taken."""

ROUND_TRIPS = 200
SCORED = 500
DATA = "fashion-mnist"


def trained(dataset, options, objective, steps, *, bounded=True):
    torch.manual_seed(0)
    config = {"model": "iresnet", "options": longflow.models.CATALOGUE["iresnet"].resolve(None, options)}
    config |= {"shape": list(dataset.shape), "levels": dataset.levels, "preprocess": "unit"}
    model = assemble(config)
    if not bounded:
        for layer in model.modules():
            if isinstance(layer, LipschitzLayer):
                layer.coefficient = math.inf
    rows, labels = (torch.from_numpy(part["train"]) for part in (dataset.splits, dataset.labels))
    batches = Batches(rows, labels, RECIPE.batch, 0)
    adapt(model, batches(0)[0].float())
    state = State(model, objective, RECIPE)
    start = time.process_time()
    for progress in train(state, objective, batches, RECIPE, steps, batches.steps_per_epoch):
        if progress.step % 100 == 0:
            print(progress.step, round(progress.loss, 3), round(time.process_time() - start), flush=True)
    spent = time.process_time() - start
    model = state.best_weights.eval()
    tighten(model)
    settle(model, torch.cat([batches(k)[0].float() for k in range(SETTLING)]))
    return model, spent


def error_of(model, dataset):
    x, y = (torch.from_numpy(part["test"]) for part in (dataset.splits, dataset.labels))
    torch.manual_seed(0)
    with torch.no_grad():
        found = torch.cat([model.logits(part.float()).argmax(1) for part in x.split(500)])
    return float((found != y).double().mean()), len(y)


def picard(block, z, iterations):
    x = z
    for _ in range(iterations):
        x = z - block.branch(x)
    return x


def inversion(model, dataset):
    """Return what inverting test images takes, the images in [0, 1]."""
    flow = model.density
    x = torch.from_numpy(dataset.split("test")[:ROUND_TRIPS]).float() + 0.5
    blocks = [m for m in flow.modules() if isinstance(m, Residual)]
    found = {}
    with torch.no_grad(), values_only():
        z = flow.encode(x)
        roots = [block.root for block in blocks]
        for iterations in (5, 10, 20, 50):
            for block in blocks:
                block.root = lambda z, context=None, how=None, block=block, n=iterations: (picard(block, z, n), None)
            back = flow.decode(z)
            found[f"error_after_{iterations}"] = float(((back - x) / dataset.levels).abs().max())
        for block, root in zip(blocks, roots, strict=True):
            block.root = root
        counts = []
        for block in blocks:
            block.inversion = FixedPoint(1e-6)
            block.root = lambda z, context=None, how=None, own=block.root: (
                counts.append(own(z, context, how)) or counts[-1]
            )
        try:
            back = flow.decode(z)
            found["error_to_1e-6"] = float(((back - x) / dataset.levels).abs().max())
            found["iterations_to_1e-6"] = {
                "most": max(int(n.max()) for _, n in counts),
                "mean": sum(float(n.double().mean()) for _, n in counts) / len(counts),
            }
        except InversionError as error:
            found["not_inverted"] = str(error)
        for block, root in zip(blocks, roots, strict=True):
            block.root = root
    return found


def classify(steps, out):
    for c in COEFFICIENTS:
        classifier({**OPTIONS, "classes": 10}, c, steps, out)


def paper(steps, out):
    for c, padding in ((0.9, 13), (0.9, 0), (None, 13)):
        classifier({**PAPER, "padding": padding}, c, steps, out)


def classifier(options, c, steps, out):
    """Train a classifier of norms at most c, None for no bound, and write what it is worth."""
    dataset = load_data(DATA)
    options |= {} if c is None else {"coefficient": c}
    model, spent = trained(dataset, options, ClassLikelihood(1.0, 0.0), steps, bounded=c is not None)
    error, n = error_of(model, dataset)
    x = torch.from_numpy(dataset.split("test")[:20]).double() + 0.5
    line = {"c": c, "steps": steps, "cpu_s": round(spent, 1), "test_error": error, "n": n}
    line["stderr"] = math.sqrt(error * (1 - error) / n)
    line |= inversion(model, dataset)
    line["certificate"] = certificate(model.density.double(), x)
    say({**line, "options": options, "commit": commit_that_runs()}, out)


def hybrid(steps, out):
    dataset = load_data(DATA)
    options = {**OPTIONS, "classes": 10, "roulette": "poisson", "terms": 2}
    dims = dataset.dims
    for name, density, label in (("0", 0.0, 1.0), ("1/D", 1.0, 1.0), ("1", float(dims), 1.0)):
        model, spent = trained(dataset, options, ClassLikelihood(label, density), steps)
        error, n = error_of(model, dataset)
        nats = log_likelihoods(model, dataset.split("test")[:SCORED])
        bits = bits_per_dim(torch.from_numpy(nats), dims).numpy()
        line = {"lambda": name, "steps": steps, "cpu_s": round(spent, 1), "accuracy": 1 - error, "n": n}
        line |= {"stderr": math.sqrt(error * (1 - error) / n), "bits_per_dim": float(bits.mean())}
        line |= {"stderr_bits_per_dim": standard_error(bits), "scored": SCORED}
        say({**line, "options": options, "commit": commit_that_runs()}, out)


def say(line, out):
    print(json.dumps(line), flush=True)
    with out.open("a") as lines:
        lines.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    prepare("cpu", 1)
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("classify", "paper", "hybrid"))
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    {"classify": classify, "paper": paper, "hybrid": hybrid}[flags.what](flags.steps, flags.out)

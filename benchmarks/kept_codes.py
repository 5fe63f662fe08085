"""Do codes survive a strong decoder? Remedies against collapse, on binary digits with a recurrent decoder.

    python benchmarks/kept_codes.py --out OUT [--steps 1500] [NAME ...]

Trains each of VARIANTS for as many steps on digits of 2 levels, one seed and one thread, and writes a line for each to
OUT/codes.jsonl: the bound on test rows and its two parts, from four draws, and an importance-weighted one; what the
codes hold of an event (mutual information and active units, over the training rows: of few rows, log N would be near);
over these, too, what deviations that differ from event to event add to KL, ½ Σ_j (log E σ_j² - E log σ_j²);
and the share of test rows whose class most of the five nearest training rows have, by the means of their codes. The
weights are the average of the end. Beside them stands the same share on pixels.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import torch
from equal_time import commit_that_runs

from longflow.bijections import settle
from longflow.data import load as load_data
from longflow.models import CATALOGUE, assemble
from longflow.objectives import ELBO
from longflow.quality import Labelled, diagnose_codes
from longflow.quality.probes import neighbour_accuracy
from longflow.training import Batches, Recipe, State, train
from longflow.training.device import prepare

RECIPE = Recipe(batch=100, lr=2e-3)
COMMON = {"decoder": "gru", "likelihood": "bernoulli", "latent": 8, "width": 64}
VARIANTS = {
    "plain": ("vae", {}, ELBO()),
    "warm-up": ("vae", {}, ELBO(kl_warmup=0.5)),
    "free bits .25": ("vae", {}, ELBO(free_bits=0.25)),
    "bn gamma .5": ("bnvae", {"normalised": "mean", "gamma": 0.5}, ELBO()),
    "bn gamma .7": ("bnvae", {"normalised": "mean", "gamma": 0.7}, ELBO()),
    "bn gamma 1": ("bnvae", {"normalised": "mean", "gamma": 1.0}, ELBO()),
    "bn both tau .5": ("bnvae", {"normalised": "both", "tau": 0.5}, ELBO()),
    "bn both tau .2": ("bnvae", {"normalised": "both", "tau": 0.2}, ELBO()),
}
DRAWS, WEIGHTS = 4, 64


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(VARIANTS))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    prepare("cpu", 1)
    flags.out.mkdir(parents=True, exist_ok=True)
    for name in flags.names:
        one(name, flags)


def one(name, flags):
    dataset = load_data("digits", 2)
    kind, own, objective = VARIANTS[name]
    options = CATALOGUE[kind].resolve(None, {**COMMON, **own})
    torch.manual_seed(flags.seed)
    config = {"model": kind, "options": options, "shape": list(dataset.shape), "levels": 2, "preprocess": "none"}
    model = assemble(config)
    rows = torch.from_numpy(dataset.split("train"))
    batches = Batches(rows, None, RECIPE.batch, flags.seed)
    state = State(model, objective, RECIPE)
    start = time.process_time()
    for progress in train(state, objective, batches, RECIPE, flags.steps, batches.steps_per_epoch):
        if progress.step % (flags.steps // 5) == 0:
            print(name, progress.step, round(progress.loss, 4), flush=True)
    spent = time.process_time() - start
    model = state.best_weights
    settle(model, rows.float())
    model.eval()
    with torch.no_grad():
        line = {
            "variant": name,
            "seed": flags.seed,
            "steps": flags.steps,
            "cpu_s": round(spent, 1),
            **measured(model, dataset),
            "options": {**COMMON, **own},
            "objective": dataclasses.asdict(objective),
            "recipe": dataclasses.asdict(RECIPE),
            "commit": commit_that_runs(),
        }
    print({k: v for k, v in line.items() if k not in ("recipe", "options", "objective")}, flush=True)
    with (flags.out / "codes.jsonl").open("a") as lines:
        lines.write(json.dumps(line) + "\n")


def measured(model, dataset):
    test = torch.from_numpy(dataset.split("test")).float()
    drawn = [model.parts(test) for _ in range(DRAWS)]
    reconstruction = torch.stack([parts["reconstruction"] for parts in drawn]).mean(0)
    kl = drawn[0]["kl"].sum(1)
    (mu, log_scale), (test_mu, _) = (model.code(torch.from_numpy(dataset.split(s)).float()) for s in ("train", "test"))
    codes = diagnose_codes(mu.numpy(), log_scale.numpy())
    labels = dataset.labels
    pixels = [Labelled(dataset.split(s).reshape(-1, 64), labels[s]) for s in ("train", "test")]
    return {
        "test_reconstruction": -float(reconstruction.mean()),
        "test_kl": float(kl.mean()),
        "test_nelbo": float((kl - reconstruction).mean()),
        "test_nelbo_stderr": float((kl - reconstruction).std() / len(test) ** 0.5),
        f"test_iw{WEIGHTS}": -float(model.bound(test, samples=WEIGHTS).mean()),
        "train_kl": codes.kl,
        "mutual_information": codes.mutual_information,
        "mutual_information_stderr": codes.stderr,
        "log_n": codes.ceiling,
        "gap": codes.gap,
        "active": codes.active,
        "uneven_scales": uneven(log_scale),
        "neighbours": neighbour_accuracy(
            Labelled(mu.numpy(), labels["train"]), Labelled(test_mu.numpy(), labels["test"])
        ),
        "neighbours_of_pixels": neighbour_accuracy(*pixels),
    }


def uneven(log_scale):
    variance = (2 * log_scale).exp()
    return 0.5 * float((variance.mean(0).log() - 2 * log_scale.mean(0)).sum())


if __name__ == "__main__":
    main()

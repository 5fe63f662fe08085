"""Outliers of ADBench's tables: the scores of a flow against scikit-learn's detectors, on the same splits.

ADBench's unsupervised protocol (Han et al. 2022): a stratified 70/30 split, training rows unlabelled with their
anomalies among them, AUROC on the test rows. At most 3,000 rows of a table (stratified, at least 10 anomalies where
there are as many); columns that are constant in training are dropped; all else is standardised by the training rows.

    python benchmarks/anomalies.py --data $LONGFLOW_DATA/anomalies --out benchmarks/results/tables/anomalies.jsonl
    python benchmarks/anomalies.py --out benchmarks/results/tables/anomalies.jsonl --summary
"""

import argparse
import hashlib
import json
import subprocess
import time
import warnings
from pathlib import Path

import numpy as np
import sklearn
import torch
from scipy.stats import rankdata
from sklearn.ensemble import IsolationForest
from sklearn.feature_selection import VarianceThreshold
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KernelDensity, LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from longflow.errors import InversionError, TrainingDivergedError
from longflow.sklearn import FlowDensity, FlowOutlier

ROWS, ANOMALIES = 3000, 10
RECIPE = {"steps": 200, "lr": 3e-3, "patience": 3}
FLOW = {"model": "realnvp", "options": {"width": 64, "blocks": 1}, **RECIPE}
SPLINES = {"model": "nsf", "options": {"layers": 3, "hidden": 64, "bound": 5.0}, **RECIPE}
WIDE = 200
"""Columns beyond which splines, of 23 numbers each, would take minutes a table: they are left out."""
METHODS = ("log-likelihood", "typicality", "latent", "ratio")

DETECTORS = {
    "IsolationForest": lambda seed: IsolationForest(random_state=seed),
    "LOF": lambda seed: LocalOutlierFactor(novelty=True),
    "GaussianMixture": lambda seed: GaussianMixture(5, reg_covar=1e-3, random_state=seed),
    "KernelDensity": lambda seed: KernelDensity(bandwidth="scott"),
}


def split(x, y, seed):
    """Return training rows, test rows and the test rows' labels."""
    generator = np.random.default_rng(seed)
    if len(x) > ROWS:
        odd, normal = (generator.permutation(np.flatnonzero(y == label)) for label in (1, 0))
        kept = min(len(odd), max(ANOMALIES, round(ROWS * len(odd) / len(x))))
        chosen = np.concatenate((odd[:kept], normal[: ROWS - kept]))
        x, y = x[chosen], y[chosen]
    rows, test, _, labels = train_test_split(x, y, test_size=0.3, stratify=y, random_state=seed)
    prepare = make_pipeline(VarianceThreshold(), StandardScaler()).fit(rows)
    return prepare.transform(rows), prepare.transform(test), labels


def flow_scores(flow, rows, test, seed, methods):
    """Yield (method, scores, seconds): one fit serves all methods, as a seed fixes it; ratio needs a second flow."""
    begun = time.process_time()
    first = "ratio" if "ratio" in methods else methods[0]
    fitted = FlowOutlier(FlowDensity(**flow), method=first, random_state=seed).fit(rows)
    took = time.process_time() - begun
    for method in methods:
        same = FlowOutlier(method=method)
        vars(same).update(
            density_=fitted.density_,
            background_=vars(fitted).get("background_"),
            n_features_in_=fitted.n_features_in_,
            entropy_=-float(fitted.density_.score(rows)),
        )
        yield method, same.score_samples(test), took / (2 if first == "ratio" != method else 1)


def measured(rows, test, labels, seed, methods):
    auroc, seconds, failed = {}, {}, {}

    def note(name, scores, took):
        auroc[name] = float(roc_auc_score(labels, -np.nan_to_num(scores, nan=-1e300, neginf=-1e300)))
        seconds[name] = round(took, 3)

    for name, make in DETECTORS.items():
        begun = time.process_time()
        scores = make(seed).fit(rows).score_samples(test)
        note(name, scores, time.process_time() - begun)
    flows = [("flow", FLOW, methods), ("spline flow", SPLINES, METHODS[:1])]
    for name, flow, wanted in flows[: 1 if rows.shape[1] > WIDE else 2]:
        try:
            for method, scores, took in flow_scores(flow, rows, test, seed, wanted):
                note(f"{name}, {method}", scores, took)
        except (TrainingDivergedError, InversionError) as error:
            lost = {f"{name}, {method}": str(error) for method in wanted}
            failed |= lost
            auroc |= dict.fromkeys(lost, 0.5)
    return {"auroc": auroc, "seconds": seconds, "failed": failed}


def run(folder, out, seeds, methods):
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    versions = {"torch": torch.__version__, "sklearn": sklearn.__version__, "commit": commit}
    done = {(line["table"], line["seed"]) for line in lines_of(out)} if out.exists() else set()
    out.parent.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for file in sorted(folder.glob("*.npz"), key=lambda file: file.stat().st_size):
            if (file.stem, seed) in done:
                continue
            stored = np.load(file)
            rows, test, labels = split(stored["X"].astype(np.float64), stored["y"].astype(int), seed)
            line = {
                "table": file.stem,
                "seed": seed,
                "rows": len(rows),
                "columns": rows.shape[1],
                "test": len(test),
                "anomalies": int(labels.sum()),
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest()[:12],
                "flow": FLOW,
                "spline flow": SPLINES,
                **versions,
                **measured(rows, test, labels, seed, methods),
            }
            with out.open("a") as stream:
                stream.write(json.dumps(line) + "\n")


def lines_of(out):
    return [json.loads(line) for line in out.read_text().splitlines()]


def summary(out):
    """Print mean AUROC over tables ± its s.e. over seeds, mean rank over tables, and how often a method is the best."""
    lines = lines_of(out)
    names = [name for name in lines[0]["auroc"] if all(name in line["auroc"] for line in lines)]
    tables = sorted({line["table"] for line in lines})
    seeds = sorted({line["seed"] for line in lines})
    found = {(line["table"], line["seed"]): line for line in lines}
    cube = np.array([[[found[t, s]["auroc"][n] for n in names] for s in seeds] for t in tables])
    by_table = cube.mean(1)
    ranks = rankdata(-by_table, axis=1)
    by_seed = cube.mean(0)
    seconds = {n: np.mean([line["seconds"].get(n, np.nan) for line in lines]) for n in names}
    print(
        f"{len(tables)} tables, seeds {seeds}\n| method | mean AUROC | mean rank | best of | s |\n|---|--:|--:|--:|--:|"
    )
    for k in np.argsort(ranks.mean(0)):
        error = by_seed[:, k].std(ddof=1) / np.sqrt(len(seeds)) if len(seeds) > 1 else np.nan
        print(
            f"| {names[k]} | {by_table[:, k].mean():.3f} ± {error:.3f} | {ranks[:, k].mean():.2f} |"
            f" {(ranks[:, k] == ranks.min(1)).sum()} | {seconds[names[k]]:.2f} |"
        )
    every = dict.fromkeys(name for line in lines for name in line["auroc"])
    for name in (name for name in every if name not in names):
        some = [line for line in lines if name in line["auroc"]]
        means = {n: np.mean([line["auroc"][n] for line in some]) for n in (name, *names)}
        took = np.nanmean([line["seconds"].get(name, np.nan) for line in some])
        print(f"\n{len({line['table'] for line in some})} tables, {took:.2f} s of {name}: mean AUROC", end=" ")
        print(", ".join(f"{n} {v:.3f}" for n, v in means.items()))
    print("\n| table | rows | columns | " + " | ".join(names) + " |\n|---|--:|--:|" + "--:|" * len(names))
    for table, row in zip(tables, by_table, strict=True):
        line = found[table, seeds[0]]
        print(f"| {table} | {line['rows']} | {line['columns']} | " + " | ".join(f"{v:.3f}" for v in row) + " |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--summary", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    summary(given.out) if given.summary else run(given.data, given.out, given.seeds, given.methods)

"""Is a picture of another kind strange? Scores of a model of Fashion-MNIST on MNIST and on flat pictures.

    python benchmarks/picture_anomalies.py prepare --data $LONGFLOW_DATA --out OUT
    longflow train glow --data OUT/fashion.npz --scales 2 --depth 4 --width 32 --batch 32 --steps 500 --lr 2e-3 \
        --out OUT/glow
    for set in fashion-test mnist-test flat; do longflow score OUT/glow OUT/$set.npz --out OUT/$set.csv \
        --method log-likelihood typicality ratio complexity latent; done
    python benchmarks/picture_anomalies.py tell --out OUT

`tell` prints, for each score, the AUROC of the other pictures against the test events of Fashion-MNIST (1: all are
stranger; 0.5: chance; below: less strange than the model's own) and its standard error (Hanley & McNeil 1982).
"""

import argparse
import gzip
import json
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

METHODS = ("log_likelihood", "typicality", "ratio", "complexity", "latent")
N = 500


def pictures(file):
    return np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=16).reshape(-1, 1, 28, 28)


def prepare(data, out):
    """Write training, validation and test rows of Fashion-MNIST, and the test rows that are scored."""
    out.mkdir(parents=True, exist_ok=True)
    train = pictures(data / "fashion-mnist" / "train-images-idx3-ubyte.gz")
    fashion, digits = (pictures(data / name / "t10k-images-idx3-ubyte.gz") for name in ("fashion-mnist", "mnist"))
    np.savez(out / "fashion.npz", train=train[:50000], validation=train[59500:], test=fashion[:300])
    np.savez(out / "fashion-test.npz", x=fashion[:N])
    np.savez(out / "mnist-test.npz", x=digits[:N])
    greys = np.arange(0, 250, 25, dtype=np.uint8).repeat(10)
    np.savez(out / "flat.npz", x=np.broadcast_to(greys[:, None, None, None], (100, 1, 28, 28)))


def stderr(auroc, odd, own):
    """Return the standard error of an AUROC from so many rows of each kind (Hanley & McNeil 1982, eq. 1)."""
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    spread = auroc * (1 - auroc) + (odd - 1) * (q1 - auroc**2) + (own - 1) * (q2 - auroc**2)
    return float(np.sqrt(max(spread, 0) / (odd * own)))


def tell(out):
    own = np.genfromtxt(out / "fashion-test.csv", delimiter=",", names=True)
    for name in ("mnist-test", "flat"):
        odd = np.genfromtxt(out / f"{name}.csv", delimiter=",", names=True)
        bits = {kind: [rows["bits_per_dim"].mean(), rows["bits_per_dim"].std(ddof=1) / np.sqrt(len(rows))]
                for kind, rows in (("own", own), ("other", odd))}  # fmt: skip
        line = {"other": name, "n": [len(odd), len(own)], "bits_per_dim": bits, "auroc": {}}
        for method in METHODS:
            labels = np.repeat([1, 0], [len(odd), len(own)])
            auroc = float(roc_auc_score(labels, np.concatenate((odd[method], own[method]))))
            called = (odd[f"p_{method}"] < 0.05).mean(), (own[f"p_{method}"] < 0.05).mean()
            line["auroc"][method] = [auroc, stderr(auroc, len(odd), len(own)), *map(float, called)]
        print(json.dumps(line))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("prepare", "tell"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    prepare(given.data, given.out) if given.what == "prepare" else tell(given.out)

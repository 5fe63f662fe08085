"""A longflow flow as sbi's density estimator: two moons (Greenberg et al. 2019), beside sbi's own NSF of nflows.

Both are trained by sbi's NPE on the same simulations; the measure is the accuracy of a classifier between samples of
the posterior and the stored reference samples (C2ST: 0.5 is as good as it gets, 1 is told apart). In the environment of
the peers:

    python benchmarks/sbi_estimator.py --reference $LONGFLOW_DATA/sbibm/two_moons.npz --out OUT.jsonl
"""

import argparse
import json
import math
import time
import warnings

import numpy as np
import sbi
import torch
from sbi.inference import NPE
from sbi.utils import BoxUniform
from sbi.utils.metrics import c2st

from longflow.sbi import density_estimator

ESTIMATORS = {
    "longflow nsf": lambda: density_estimator("nsf", **OURS),
    "sbi nsf (nflows)": lambda: "nsf",
}
OURS = {"layers": 5, "hidden": 50, "blocks": 2, "bins": 10}


def two_moons(theta):
    """Draw x, (N, 2), for parameters θ, (N, 2)."""
    a = math.pi * (torch.rand(len(theta)) - 0.5)
    r = 0.1 + 0.01 * torch.randn(len(theta))
    crescent = torch.stack((r * a.cos() + 0.25, r * a.sin()), 1)
    moved = torch.stack((-theta.sum(1).abs(), theta[:, 1] - theta[:, 0]), 1) / math.sqrt(2)
    return crescent + moved


def posterior_of(name, prior, theta, x, epochs, seed):
    torch.manual_seed(seed)
    begun = time.process_time()
    inference = NPE(prior, density_estimator=ESTIMATORS[name](), show_progress_bars=False)
    estimator = inference.append_simulations(theta, x).train(max_num_epochs=epochs)
    return inference.build_posterior(estimator), time.process_time() - begun, inference.summary


def main(given):
    stored = np.load(given.reference)
    prior = BoxUniform(-torch.ones(2), torch.ones(2))
    for seed in given.seeds:
        torch.manual_seed(seed)
        theta = prior.sample((given.simulations,))
        x = two_moons(theta)
        for name in ESTIMATORS:
            posterior, seconds, summary = posterior_of(name, prior, theta, x, given.epochs, seed)
            for k in (1, 2, 3):
                draws = posterior.sample((1000,), x=torch.tensor(stored[f"obs_{k}"]).float(), show_progress_bars=False)
                reference = torch.tensor(stored[f"ref_{k}"][:1000])
                line = {
                    "estimator": name,
                    "task": "two_moons",
                    "observation": k,
                    "c2st": float(c2st(draws, reference, seed=seed)),
                    "simulations": given.simulations,
                    "epochs": summary["epochs_trained"][-1],
                    "validation_nats": -summary["best_validation_loss"][-1],
                    "train_seconds": round(seconds, 1),
                    "seed": seed,
                    "sbi": sbi.__version__,
                    "torch": torch.__version__,
                }
                print(json.dumps(line), flush=True)
                with open(given.out, "a") as out:
                    out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--reference", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    main(parser.parse_args())

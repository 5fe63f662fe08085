"""Posteriors of simulators by one round of NPE, against reference posteriors: C2ST, beside sbi's estimators.

    LONGFLOW_DATA=... python benchmarks/simulators.py ours --out FILE [--tasks two_moons slcp sir] [--simulations 10000]
    LONGFLOW_DATA=... PEER_ENVIRONMENT/bin/python benchmarks/simulators.py peers --out FILE [--methods nsf zuko_nsf maf]
    LONGFLOW_DATA=... python benchmarks/simulators.py check

Tasks, priors and observations are those of sbibm (Lueckmann et al. 2021), with simulators written anew; `check` draws
5,000 times at the true parameters of every observation and says which share of the observed numbers lies among them.
C2ST is the cross-validated accuracy of a classifier between 10,000 draws of the posterior and 10,000 of the reference:
0.5 is perfect, 1 is apart.
All methods get the same draws of prior and simulator; parameters with a log-normal prior are given as logarithms to
all. A line for each task, method and seed; CPU seconds of one thread.
"""

import argparse
import hashlib
import json
import math
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neural_network import MLPClassifier

OBSERVATIONS = (1, 2, 3)
DRAWS = 10_000
NETS = {"hidden": 50, "transforms": 5, "bins": 10}
"""What sbi's builders and ours are given; each conditioner has two residual blocks, of MAF two hidden layers."""


def two_moons(theta):
    angle = math.pi * (torch.rand(len(theta)) - 0.5)
    radius = 0.1 + 0.01 * torch.randn(len(theta))
    crescent = torch.stack((radius * angle.cos() + 0.25, radius * angle.sin()), 1)
    total, difference = theta.sum(1).abs() / math.sqrt(2), (theta[:, 1] - theta[:, 0]) / math.sqrt(2)
    return crescent + torch.stack((-total, difference), 1)


def slcp(theta):
    mean, first, second, correlation = theta[:, :2], theta[:, 2] ** 2, theta[:, 3] ** 2, theta[:, 4].tanh()
    noise = torch.randn(len(theta), 4, 2)
    crossed = correlation[:, None] * noise[..., 0] + (1 - correlation**2).sqrt()[:, None] * noise[..., 1]
    deviations = torch.stack((first[:, None] * noise[..., 0], second[:, None] * crossed), -1)
    return (mean[:, None] + deviations).flatten(1)


def sir(theta):
    """Of a million people, one ill at first; of a thousand tested every 17 days, how many are ill."""
    contact, recovery = theta.double().exp().T
    people = 1e6

    def change(state):
        susceptible, ill = state
        new = contact * susceptible * ill / people
        return torch.stack((-new, new - recovery * ill))

    start = torch.tensor([[people - 1], [1.0]], dtype=torch.float64).expand(2, len(theta))
    ill = runge_kutta(change, start, 0.1, 1600)[::170, 1].T
    return torch.distributions.Binomial(1000, (ill / people).clamp(0, 1)).sample().float()


def lotka_volterra(theta):
    """Prey and predators every 2.1 days, with multiplicative noise of 0.1."""
    alpha, beta, gamma, delta = theta.double().exp().T

    def change(state):
        prey, predators = state
        return torch.stack((alpha * prey - beta * prey * predators, delta * prey * predators - gamma * predators))

    start = torch.tensor([[30.0], [1.0]], dtype=torch.float64).expand(2, len(theta))
    seen = runge_kutta(change, start, 0.01, 2000)[::210].permute(2, 1, 0).flatten(1)
    return (seen.clamp(1e-10, 1e4) * (0.1 * torch.randn_like(seen)).exp()).float()


def runge_kutta(change, state, step, steps):
    """Return the states after 0, 1, …, `steps` steps of the classical method of fourth order."""
    states = [state]
    for _ in range(steps):
        a = change(state)
        b = change(state + step / 2 * a)
        c = change(state + step / 2 * b)
        d = change(state + step * c)
        state = state + step / 6 * (a + 2 * b + 2 * c + d)
        states.append(state)
    return torch.stack(states)


def box(bound, dims):
    wide = torch.full((dims,), bound)
    return torch.distributions.Independent(torch.distributions.Uniform(-wide, wide), 1)


def normal(mean, deviation):
    return torch.distributions.Independent(torch.distributions.Normal(torch.tensor(mean), torch.tensor(deviation)), 1)


TASKS = {
    "two_moons": (two_moons, box(1.0, 2)),
    "slcp": (slcp, box(3.0, 5)),
    "sir": (sir, normal([math.log(0.4), math.log(0.125)], [0.5, 0.2])),
    "lotka_volterra": (lotka_volterra, normal([-0.125, -3.0, -0.125, -3.0], [0.5] * 4)),
}
LOGARITHMIC = ("sir", "lotka_volterra")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("who", choices=("ours", "peers", "check"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["two_moons", "slcp", "sir"])
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--simulations", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    flags = parser.parse_args()
    torch.set_num_threads(1)
    if flags.who == "check":
        for task in TASKS:
            check(task)
        return
    methods = flags.methods or {"ours": ["nsf"], "peers": ["nsf", "zuko_nsf", "maf"]}[flags.who]
    for seed in flags.seeds:
        for task in flags.tasks:
            for method in methods:
                one(task, flags.who, method, flags.simulations, seed, flags.out)


def stored(task):
    file = Path(os.environ["LONGFLOW_DATA"]) / "sbibm" / f"{task}.npz"
    return file, np.load(file)


def check(task):
    _, data = stored(task)
    torch.manual_seed(0)
    worst = []
    for k in range(1, 11):
        theta = torch.from_numpy(data[f"theta_{k}"]).float().reshape(1, -1)
        theta = theta.log() if task in LOGARITHMIC else theta
        x = TASKS[task][0](theta.expand(5000, -1)).numpy()
        inside = (data[f"obs_{k}"].ravel() >= x.min(0)) & (data[f"obs_{k}"].ravel() <= x.max(0))
        worst.append(float(inside.mean()))
    print(json.dumps({"task": task, "share_of_observed_numbers_within_5000_draws_at_the_truth": worst}))


def one(task, who, method, simulations, seed, out):
    simulate, prior = TASKS[task]
    file, data = stored(task)
    torch.manual_seed(1000 + seed)
    theta = prior.sample((simulations,))
    x = simulate(theta)
    torch.manual_seed(seed)
    start = time.process_time()
    sample, told = {"ours": ours, "peers": theirs}[who](method, prior, theta, x, seed)
    trained = time.process_time() - start
    observed = [torch.from_numpy(data[f"obs_{k}"].astype(np.float32)).flatten() for k in OBSERVATIONS]
    start = time.process_time()
    drawn = [sample(DRAWS, observation) for observation in observed]
    sampled = (time.process_time() - start) / len(OBSERVATIONS)
    found = []
    for k, (theta_k, acceptance) in zip(OBSERVATIONS, drawn, strict=True):
        theta_k = theta_k.exp() if task in LOGARITHMIC else theta_k
        accuracies = c2st(data[f"ref_{k}"].astype(np.float32), theta_k.numpy())
        found.append({"observation": k, "c2st": accuracies.mean(), "folds": list(accuracies), "acceptance": acceptance})
    line = {
        "task": task,
        "method": f"{'longflow' if who == 'ours' else 'sbi'} {method}",
        "simulations": simulations,
        "seed": seed,
        "c2st_mean": float(np.mean([f["c2st"] for f in found])),
        "observations": found,
        "train_cpu_s": trained,
        "sample_cpu_s": sampled,
        **told,
        "data_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "torch": torch.__version__,
        "commit": commit(),
    }
    print(json.dumps({k: v for k, v in line.items() if k != "observations"}), flush=True)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a") as lines:
            lines.write(json.dumps(line) + "\n")


def ours(method, prior, theta, x, seed):
    from longflow.inference import fit_posterior

    options = {
        "nsf": {"layers": NETS["transforms"], "hidden": NETS["hidden"], "bins": NETS["bins"], "blocks": 2},
        "realnvp": {"width": NETS["hidden"], "blocks": 1},
    }[method]
    posterior = fit_posterior(theta, x, method, options=options, support=prior.support, seed=seed)

    def sample(n, observation):
        found = posterior.sample(n, observation)
        return found.samples, found.acceptance

    told = {
        "epochs": len(posterior.held.validation),
        "validation_nats": posterior.held.best,
        "parameters": sum(p.numel() for p in posterior.flow.parameters()),
        "options": options,
    }
    return sample, told


def theirs(method, prior, theta, x, seed):
    import sbi
    from sbi.inference import NPE
    from sbi.neural_nets import posterior_nn
    from torch.utils.tensorboard import SummaryWriter

    bins = {} if method == "maf" else {"num_bins": NETS["bins"]}
    net = posterior_nn(method, hidden_features=NETS["hidden"], num_transforms=NETS["transforms"], **bins)
    with tempfile.TemporaryDirectory() as logs:
        writer = SummaryWriter(logs)
        inference = NPE(prior, density_estimator=net, show_progress_bars=False, summary_writer=writer)
        estimator = inference.append_simulations(theta, x).train()
        writer.close()
    posterior = inference.build_posterior(estimator)

    def sample(n, observation):
        return posterior.sample((n,), x=observation, show_progress_bars=False), None

    told = {
        "epochs": inference._summary["epochs_trained"][-1],
        "validation_nats": -float(inference._summary["best_validation_loss"][-1]),
        "parameters": sum(p.numel() for p in estimator.parameters()),
        "sbi": sbi.__version__,
    }
    return sample, told


def c2st(reference, drawn, folds=5, seed=1):
    """Return a classifier's accuracies on held-out folds (as sbibm: two layers of 10·d, units of the reference)."""
    mean, std = reference.mean(0), reference.std(0)
    rows = np.concatenate(((reference - mean) / std, (drawn - mean) / std))
    labels = np.repeat([0, 1], [len(reference), len(drawn)])
    width = 10 * rows.shape[1]
    classifier = MLPClassifier((width, width), max_iter=10_000, random_state=seed)
    return cross_val_score(classifier, rows, labels, cv=KFold(folds, shuffle=True, random_state=seed))


def commit():
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip()


if __name__ == "__main__":
    main()

"""Densities of real tables by longflow, zuko, nflows and normflows: equal layers, widths, optimiser, steps and batches.

    LONGFLOW_DATA=... PYTHONPATH=src PEERS/bin/python benchmarks/tables.py power_plant protein --out OUT/tables.jsonl

Columns are standardised by the training rows, for all alike; nats are of the original units (log p(x) less the sum of
the logarithms of the deviations). 80/10/10 by a fixed permutation, Adam 1e-3 with half a cosine, the weights that the
validation rows like best of ten. One thread; time is CPU time of the training steps, in which libraries take turns of
50 steps, so that whatever else the machine does hits them alike. A line for each model.
"""

import argparse
import copy
import hashlib
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from equal_time import commit_that_runs

import longflow

BINS, BOUND, BLOCKS = 8, 3.0, 2
TURN = 50


def ours(kind, dims, layers, hidden):
    if kind == "maf":
        return longflow.build("maf", (dims,), layers=layers, hidden=hidden, depth=BLOCKS)
    options = {"layers": layers, "hidden": hidden, "blocks": BLOCKS, "bins": BINS, "bound": BOUND}
    return longflow.build("nsf", (dims,), kind=kind, **options)


def of_zuko(kind, dims, layers, hidden):
    import zuko

    widths = [hidden] * BLOCKS
    if kind == "maf":
        return Called(zuko.flows.MAF(dims, transforms=layers, hidden_features=widths))
    if kind == "coupling":
        return None
    widths = [hidden] * (BLOCKS + 1)
    return Called(zuko.flows.NSF(dims, bins=BINS, transforms=layers, hidden_features=widths, residual=True))


def of_nflows(kind, dims, layers, hidden):
    import torch.nn.functional as F
    from nflows import distributions, flows, transforms
    from nflows.nn.nets import ResidualNet

    def net(n, m):
        return ResidualNet(n, m, hidden_features=hidden, num_blocks=BLOCKS, activation=F.relu)

    def layer(k):
        if kind == "maf":
            return transforms.MaskedAffineAutoregressiveTransform(
                dims, hidden, num_blocks=BLOCKS, use_residual_blocks=False, activation=F.relu
            )
        spline = {"num_bins": BINS, "tails": "linear", "tail_bound": BOUND}
        if kind == "coupling":
            mask = [(d + k) % 2 for d in range(dims)]
            return transforms.PiecewiseRationalQuadraticCouplingTransform(
                mask, net, apply_unconditional_transform=True, **spline
            )
        return transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
            dims, hidden, num_blocks=BLOCKS, activation=F.relu, **spline
        )

    def mix():
        if kind == "maf":
            return transforms.ReversePermutation(dims)
        return transforms.CompositeTransform([transforms.RandomPermutation(dims), transforms.LULinear(dims)])

    parts = [part for k in range(layers) for part in (mix(), layer(k))]
    return Called(flows.Flow(transforms.CompositeTransform([*parts, mix()]), distributions.StandardNormal([dims])))


def of_normflows(kind, dims, layers, hidden):
    import normflows as nf

    def layer():
        if kind == "maf":
            return nf.flows.MaskedAffineAutoregressive(dims, hidden, num_blocks=BLOCKS, use_residual_blocks=False)
        make = (
            nf.flows.CoupledRationalQuadraticSpline
            if kind == "coupling"
            else nf.flows.AutoregressiveRationalQuadraticSpline
        )
        return make(dims, BLOCKS, hidden, num_bins=BINS, tail_bound=BOUND)

    mix = (lambda: nf.flows.Permute(dims, mode="swap")) if kind == "maf" else (lambda: nf.flows.LULinearPermute(dims))
    parts = [part for _ in range(layers) for part in (layer(), mix())]
    return Called(nf.NormalizingFlow(nf.distributions.DiagGaussian(dims, trainable=False), parts))


class Called(torch.nn.Module):
    """A peer's model, called for its log-densities as ours are."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return (self.inner() if type(self.inner).__module__.startswith("zuko") else self.inner).log_prob(x)


LIBRARIES = {"longflow": ours, "zuko": of_zuko, "nflows": of_nflows, "normflows": of_normflows}


class Trained:
    """A model in training: it takes turns of some steps, and keeps the weights that validation likes best."""

    def __init__(self, model, rows, validation, steps, batch, seed):
        self.model, self.rows, self.validation = model, rows, validation
        self.steps, self.batch, self.seed, self.step, self.seconds = steps, batch, seed, 0, 0.0
        self.optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
        self.best, self.kept = math.inf, None

    def turn(self):
        start = time.process_time()
        for _ in range(TURN):
            epoch, place = divmod(self.step, len(self.rows) // self.batch)
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.rows))
            x = self.rows[order[place * self.batch : (place + 1) * self.batch]]
            for group in self.optimiser.param_groups:
                group["lr"] = 0.5e-3 * (1 + math.cos(math.pi * self.step / self.steps))
            self.optimiser.zero_grad(set_to_none=True)
            (-self.model(x).mean()).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
            self.optimiser.step()
            self.step += 1
        self.seconds += time.process_time() - start
        if self.step % (self.steps // 10) < TURN:
            loss = -self.scores(self.validation).mean().item()
            if loss < self.best:
                self.best, self.kept = loss, copy.deepcopy(self.model.state_dict())

    def scores(self, rows):
        self.model.eval()
        with torch.no_grad():
            found = torch.cat([self.model(x) for x in rows.split(1000)])
        self.model.train()
        return found.double()


def table(name):
    raw = np.load(Path(os.environ["LONGFLOW_DATA"]) / "tabular" / f"{name}.npy")
    facts = {"data": name, "shape": list(raw.shape), "data_sha256": hashlib.sha256(raw.tobytes()).hexdigest()}
    x = raw.astype(np.float64)[:, raw.std(0) > 0]
    x = x[np.random.default_rng(0).permutation(len(x))]
    tenth = len(x) // 10
    train, validation, test = x[: -2 * tenth], x[-2 * tenth : -tenth], x[-tenth:]
    mean, deviation = train.mean(0), train.std(0)
    parts = [torch.tensor((part - mean) / deviation, dtype=torch.float32) for part in (train, validation, test)]
    return parts, float(np.log(deviation).sum()), facts


def lines(name, kind, flags):
    (train, validation, test), unit, facts = table(name)
    runs = {}
    for library, build in LIBRARIES.items():
        torch.manual_seed(flags.seed)
        model = build(kind, train.shape[1], flags.layers, flags.hidden)
        if model is not None and library in flags.libraries:
            runs[library] = Trained(model, train, validation, flags.steps, flags.batch, flags.seed)
    for _ in range(flags.steps // TURN):
        for run in runs.values():
            run.turn()
    nats = {}
    for library, run in runs.items():
        run.model.load_state_dict(run.kept)
        nats[library] = run.scores(test) - unit
    for library, run in runs.items():
        lead = nats["longflow"] - nats[library]
        yield {
            **facts,
            "kind": kind,
            "library": library,
            "nats": nats[library].mean().item(),
            "stderr": nats[library].std().item() / len(test) ** 0.5,
            "ours_ahead_by": lead.mean().item(),
            "ahead_stderr": lead.std().item() / len(test) ** 0.5,
            "ms_per_step": 1e3 * run.seconds / run.step,
            "our_time_over_its": runs["longflow"].seconds / run.seconds,
            "parameters": sum(p.numel() for p in run.model.parameters() if p.requires_grad),
            "settings": {k: v for k, v in vars(flags).items() if k in ("steps", "batch", "seed", "layers", "hidden")},
            "torch": torch.__version__,
            "commit": commit_that_runs(),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="+")
    parser.add_argument("--kinds", nargs="+", default=["coupling", "autoregressive"])
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    for name in flags.tables:
        for kind in flags.kinds:
            for line in lines(name, kind, flags):
                with flags.out.open("a") as file:
                    print(json.dumps(line), file=file)
                told = (
                    "data",
                    "kind",
                    "library",
                    "nats",
                    "stderr",
                    "ours_ahead_by",
                    "ahead_stderr",
                    "ms_per_step",
                    "our_time_over_its",
                    "parameters",
                )
                print(*(f"{line[k]:.4g}" if isinstance(line[k], float) else line[k] for k in told), flush=True)


if __name__ == "__main__":
    main()

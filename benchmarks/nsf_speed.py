"""Neural spline flows here beside those of the peers, in one process: training step, log_prob and sampling, as ratios.

    PYTHONPATH=src PEER_ENVIRONMENT/bin/python benchmarks/nsf_speed.py [--kind autoregressive] [--out FILE]

In an environment with torch, nflows, normflows and zuko (and safetensors). Equal in each: features, layers, hidden
units, linear layers of a network (the first, two for each residual block, the last; in zuko as many without the
shortcuts), bins, batch, Adam, float32, one thread; permutations between layers. In all couplings the features that
condition move, too, by splines of their own (zuko: by those of its network's biases). Turns alternate; figures are CPU
seconds, and the ratio to the fastest peer of each turn: least, median and largest.

With --compile, log_prob of each goes through torch.compile: ours as one graph, those of peers with as many breaks as
they need; "eager" where it cannot be compiled.
"""

import argparse
import json
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch
from equal_time import commit_that_runs

BOUND, BLOCKS, BINS = 3.0, 2, 8


def longflow_(flags):
    import longflow

    options = {"layers": flags.layers, "hidden": flags.hidden, "blocks": BLOCKS, "bins": BINS, "bound": BOUND}
    flow = longflow.build("nsf", (flags.features,), kind=flags.kind, mixing="shuffle", **options)
    return flow, flow.log_prob, flow.sample


def nflows_(flags):
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.nn.nets.resnet import ResidualNet
    from nflows.transforms import (
        CompositeTransform,
        MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
        PiecewiseRationalQuadraticCouplingTransform,
        RandomPermutation,
    )
    from nflows.utils.torchutils import create_alternating_binary_mask

    spline = {"num_bins": BINS, "tails": "linear", "tail_bound": BOUND}

    def net(features_in, features_out):
        return ResidualNet(features_in, features_out, hidden_features=flags.hidden, num_blocks=BLOCKS)

    def layer(k):
        if flags.kind == "autoregressive":
            return MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
                flags.features, flags.hidden, num_blocks=BLOCKS, **spline
            )
        mask = create_alternating_binary_mask(flags.features, even=k % 2 == 0)
        return PiecewiseRationalQuadraticCouplingTransform(mask, net, apply_unconditional_transform=True, **spline)

    parts = [part for k in range(flags.layers) for part in (RandomPermutation(flags.features), layer(k))]
    flow = Flow(CompositeTransform(parts), StandardNormal([flags.features]))
    return flow, flow.log_prob, flow.sample


def normflows_(flags):
    import normflows as nf

    kinds = {
        "coupling": nf.flows.CoupledRationalQuadraticSpline,
        "autoregressive": nf.flows.AutoregressiveRationalQuadraticSpline,
    }
    kind = kinds[flags.kind]
    layers = [kind(flags.features, BLOCKS, flags.hidden, num_bins=BINS, tail_bound=BOUND) for _ in range(flags.layers)]
    parts = [part for layer in layers for part in (nf.flows.Permute(flags.features), layer)]
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(flags.features, trainable=False), parts)
    return flow, flow.log_prob, lambda n: flow.sample(n)[0]


def zuko_(flags):
    import zuko

    passes = 2 if flags.kind == "coupling" else None
    hidden = (flags.hidden,) * (1 + 2 * BLOCKS)
    options = {"transforms": flags.layers, "bins": BINS, "hidden_features": hidden, "randperm": True, "passes": passes}
    flow = zuko.flows.NSF(flags.features, **options)
    return flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,))


MAKERS = {"longflow": longflow_, "nflows": nflows_, "normflows": normflows_, "zuko": zuko_}


def compiled(name, log_prob, x):
    """Return log_prob through torch.compile, and how that went."""
    torch._dynamo.reset()
    made = torch.compile(log_prob, fullgraph=name == "longflow")
    try:
        made(x).mean().backward()
    except Exception as error:
        return log_prob, f"eager ({type(error).__name__})"
    return made, "one graph" if name == "longflow" else "compiled"


def jobs(name, flags):
    """Return the jobs of a model, how it was compiled, and the number of its parameters."""
    torch.manual_seed(0)
    flow, log_prob, sample = MAKERS[name](flags)
    x = torch.randn(flags.batch, flags.features)
    optimiser = torch.optim.Adam(flow.parameters(), 5e-4)
    how = "eager"
    if flags.compile:
        log_prob, how = compiled(name, log_prob, x)

    def step():
        optimiser.zero_grad()
        (-log_prob(x).mean()).backward()
        optimiser.step()

    def score():
        with torch.no_grad():
            log_prob(x)

    def draw():
        with torch.no_grad():
            sample(flags.batch)

    work = {"training step": step, "log_prob": score, "sample": draw}
    for job in [step] * 20 + [score, draw]:
        job()
    return work, how, sum(p.numel() for p in flow.parameters() if p.requires_grad)


def timed(made, job, turns):
    """Return CPU seconds of each turn, by name: the models take turns."""
    spent = {name: [] for name in made}
    for _ in range(turns):
        for name, (work, _, _) in made.items():
            start = time.process_time()
            work[job]()
            spent[name].append(time.process_time() - start)
    return spent


def told(spent):
    """Return medians in milliseconds, and the ratio to each peer and to the fastest of each turn."""
    line = {"milliseconds": {name: round(1000 * statistics.median(values), 3) for name, values in spent.items()}}
    ours = spent["longflow"]
    peers = {name: values for name, values in spent.items() if name != "longflow"}
    peers["fastest peer"] = [min(turn) for turn in zip(*peers.values(), strict=True)]
    for name, theirs in peers.items():
        ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
        line[f"ratio to {name}"] = [round(r, 3) for r in (ratios[0], statistics.median(ratios), ratios[-1])]
    return line


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=("coupling", "autoregressive"), default="coupling")
    parser.add_argument("--features", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--turns", type=int, default=25)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    made = {name: jobs(name, flags) for name in MAKERS}
    line = {k: v for k, v in vars(flags).items() if k != "out"}
    line["parameters"] = {name: parameters for name, (_, _, parameters) in made.items()}
    line["how"] = {name: how for name, (_, how, _) in made.items()}
    line |= {job: told(timed(made, job, flags.turns)) for job in ("training step", "log_prob", "sample")}
    line |= {name: version(name) for name in ("torch", "nflows", "normflows", "zuko")}
    line |= {"commit": commit_that_runs(), "command": " ".join(["python", *sys.argv])}
    print(json.dumps(line, indent=1))
    if flags.out:
        with flags.out.open("a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()

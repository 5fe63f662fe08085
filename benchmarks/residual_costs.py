"""What a residual block's training step costs: passes and memory against the number of terms, and beside normflows.

    python benchmarks/residual_costs.py terms [--out FILE]
    PYTHONPATH=src PEER_ENVIRONMENT/bin/python benchmarks/residual_costs.py peer [--out FILE]

`terms`: a residual flow's step with 2 to 32 terms, with Neumann's gradient and through the series, in units of a
forward pass of the branches, with the peak of resident memory over what was resident before. `peer`: the same blocks as
normflows' `Residual`, turns alternating, medians, and the gradients of two choices of rows' weights. CPU time of one
thread.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

import torch

from longflow.bijections import Residual
from longflow.bijections.series import Series
from longflow.constraints import constrain
from longflow.nets import Contraction, conv_layers, linear_layers
from longflow.nets.lipschitz import LipSwish

TERMS = (2, 4, 8, 16, 32)
SHAPE = (12, 16, 16)
BATCH, WIDTH, BLOCKS = 64, 64, 4


def blocks_of(series):
    torch.manual_seed(0)
    return [
        Residual(
            steep(Contraction(conv_layers(0.98, SHAPE[1:]), SHAPE[0], width=WIDTH, depth=2, activation=LipSwish)),
            SHAPE[0] * SHAPE[1] * SHAPE[2],
            training=series,
        ).train()
        for _ in range(BLOCKS)
    ]


def steep(branch):
    """Bring every layer to its largest norm, as training does: flat branches end their series early."""
    with torch.no_grad():
        for name, p in branch.named_parameters():
            if name.endswith("weight"):
                p.mul_(30)
    constrain(branch)
    return branch


def step(blocks, x):
    total = 0.0
    for block in blocks:
        x, log_det = block(x)
        total = total + log_det.mean()
    (x.square().mean() - total).backward()


def timed(action, turns=5):
    action()
    found = []
    for _ in range(turns):
        start = time.process_time()
        action()
        found.append(time.process_time() - start)
    return statistics.median(found)


def peak_of(action):
    """Return the high-water mark of the resident set during an action over what was resident before, in MiB (Linux)."""

    def resident(key):
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) / 1024

    action()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    action()
    return resident("VmHWM") - before


def terms(out):
    torch.manual_seed(0)
    x = torch.randn(BATCH, *SHAPE)
    with torch.no_grad():
        blocks = blocks_of(Series())
        unit = timed(lambda: [block.branch(x) for block in blocks])
    for gradient in ("neumann", "series"):
        for count in TERMS if gradient == "neumann" else TERMS[:-1]:
            blocks = blocks_of(Series(terms=count, roulette="none", gradient=gradient))
            step(blocks, x)
            line = {
                "gradient": gradient,
                "terms": count,
                "forward_s": unit,
                "step_s": timed(lambda blocks=blocks: step(blocks, x), 3),
                "peak_mib": peak_of(lambda blocks=blocks: step(blocks, x)),
            }
            line["step_in_forwards"] = line["step_s"] / unit
            say(line, out)


def peer(out):
    import normflows

    shape, batch = (64,), 256
    torch.manual_seed(0)
    x = torch.randn(batch, *shape)
    # Theirs: 2 terms and N >= 1 more of P(N >= j) = 2^(1-j). The same as 3 terms and N >= 0 more of P(N >= j) = 2^-j.
    series = Series(terms=3, roulette="geometric", rate=1.0, probe="gaussian")
    branch = Contraction(linear_layers(0.9), 64, width=128, depth=2, activation=LipSwish, preactivate=True)
    ours = Residual(branch, 64, training=series).train()
    net = normflows.nets.LipschitzMLP([64, 128, 128, 64], init_zeros=False, lipschitz_const=0.9)
    theirs = normflows.flows.Residual(net, reduce_memory=True, geom_p=0.5, n_exact_terms=2).train()

    def ours_step():
        z, log_det = ours(x)
        (z.square().sum() - log_det.sum()).backward()

    def theirs_step():
        z, log_det = theirs.inverse(x)  # data to latent is their inverse
        (z.square().sum() - log_det.sum()).backward()

    def ours_norms():
        constrain(branch)

    def theirs_norms():
        normflows.utils.update_lipschitz(net, 5)

    for what, *actions in (("step", ours_step, theirs_step), ("norms", ours_norms, theirs_norms)):
        pairs = {"ours": [], "theirs": []}
        for _ in range(60):
            for name, action in zip(pairs, actions, strict=True):
                start = time.process_time()
                action()
                pairs[name].append(time.process_time() - start)
        medians = {name: statistics.median(values) for name, values in pairs.items()}
        say({"what": f"{what}, s", **medians, "ratio": medians["ours"] / medians["theirs"]}, out)
    many = torch.randn(16384, *shape)

    def chained(step, blocks):
        z, total = many, 0.0
        for _ in range(blocks):
            z, log_det = step(z)
            total = total + log_det
        (z.square().sum() - total.sum()).backward()

    for blocks in (1, 8):
        peaks = {
            "ours": peak_of(lambda blocks=blocks: chained(ours, blocks)),
            "theirs": peak_of(lambda blocks=blocks: chained(theirs.inverse, blocks)),
        }
        ratio = peaks["ours"] / peaks["theirs"]
        say({"what": f"peak of a step of {blocks} block(s) on 16,384 rows, MiB", **peaks, "ratio": ratio}, out)
    for weights in ([1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0]):
        found = {
            "ours": weighted(lambda rows: ours(rows)[1], [p for p in branch.parameters()], weights),
            "theirs": weighted(lambda rows: theirs.inverse(rows)[1], list(net.parameters()), weights),
        }
        say(
            {
                "what": f"gradient of log-dets, weights {weights}, over that of 1 1 1 1",
                **found,
            },
            out,
        )


def weighted(log_det, parameters, weights):
    """Return ‖gradient of Σ w log-det‖ over that of Σ log-det, both with the same probes."""
    norms = []
    for chosen in (weights, [1.0] * 4):
        torch.manual_seed(1)
        rows = torch.randn(4, 64)
        found = torch.autograd.grad((torch.tensor(chosen) * log_det(rows)).sum(), parameters, allow_unused=True)
        norms.append(torch.cat([g.flatten() for g in found if g is not None]).norm().item())
    return norms[0] / norms[1]


def say(line, out):
    print(json.dumps(line), flush=True)
    if out:
        with out.open("a") as lines:
            lines.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    if "MALLOC_MMAP_THRESHOLD_" not in os.environ:  # freed memory goes back at once: the resident set is what is used
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"})
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("terms", "peer"))
    parser.add_argument("--out", type=Path)
    flags = parser.parse_args()
    {"terms": terms, "peer": peer}[flags.what](flags.out)

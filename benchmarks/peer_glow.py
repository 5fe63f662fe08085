"""Glow here beside normflows' Glow, in one process: training step, log_prob, sampling and peak memory, as ratios.

    PYTHONPATH=src PEER_ENVIRONMENT/bin/python benchmarks/peer_glow.py [--width 64] [--batch 32]

In an environment with torch and normflows (and safetensors). Same scales, depth, width, batch, float32, one thread;
affine couplings with the scale σ(s + 2), PLU 1×1 convolutions, activation normalisation inside the conditioners,
zero-initialised last convolutions. Turns alternate; figures are medians of CPU seconds, and the ratio of the medians. A
memory peak is the high-water mark of the resident set over that before the step, in a process of its own (Linux).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

SHAPE, SCALES, DEPTH, TURNS = (3, 32, 32), 3, 8, 9
STEADY = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""So that freed memory goes back at once, and the resident set is what is used."""


def ours(width, trunk="float64"):
    import longflow

    options = {"scales": SCALES, "depth": DEPTH, "width": width, "trunk": trunk}
    flow = longflow.build("glow", SHAPE, **options)
    return flow, flow.log_prob, flow.sample


def theirs(width):
    import normflows as nf

    blocks, merges, bases = [], [], []
    for i in range(SCALES):
        channels = SHAPE[0] * 2 ** (SCALES + 1 - i)
        steps = [nf.flows.GlowBlock(channels, width, net_actnorm=True) for _ in range(DEPTH)]
        blocks.append([*steps, nf.flows.Squeeze()])
        if i > 0:
            merges.append(nf.flows.Merge())
            latent = (SHAPE[0] * 2 ** (SCALES - i), SHAPE[1] // 2 ** (SCALES - i), SHAPE[2] // 2 ** (SCALES - i))
        else:
            latent = (SHAPE[0] * 2 ** (SCALES + 1), SHAPE[1] // 2**SCALES, SHAPE[2] // 2**SCALES)
        bases.append(nf.distributions.GlowBase(latent))
    flow = nf.MultiscaleFlow(bases, blocks, merges, class_cond=False)
    return flow, lambda x: flow.log_prob(x, None), lambda n: flow.sample(n)[0]


MAKERS = {"longflow": ours, "normflows": theirs}


def jobs(name, width, batch):
    """Return the model's three jobs, after one step from data that initialises it."""
    torch.manual_seed(0)
    flow, log_prob, sample = MAKERS[name](width)
    x = torch.rand(batch, *SHAPE) - 0.5
    if name == "longflow":
        from longflow.bijections import adapt

        adapt(flow, x)
    optimiser = torch.optim.Adam(flow.parameters(), 1e-4)

    def step():
        optimiser.zero_grad()
        (-log_prob(x).mean()).backward()
        optimiser.step()

    def score():
        with torch.no_grad():
            log_prob(x)

    def draw():
        with torch.no_grad():
            sample(batch)

    step()
    parameters = sum(p.numel() for p in flow.parameters() if p.requires_grad)
    return {"training step": step, "log_prob": score, "sample": draw}, parameters


def resident(key):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def peak(name, width, batch):
    step = jobs(name, width, batch)[0]["training step"]
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    step()
    return resident("VmHWM") - before


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--peak", choices=MAKERS)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    if flags.peak:
        print(peak(flags.peak, flags.width, flags.batch))
        return
    made = {name: jobs(name, flags.width, flags.batch) for name in MAKERS}
    result = {"width": flags.width, "batch": flags.batch, "torch": torch.__version__}
    result["parameters"] = {name: parameters for name, (_, parameters) in made.items()}
    for job in ("training step", "log_prob", "sample"):
        spent = {name: [] for name in MAKERS}
        for _ in range(TURNS):
            for name, (work, _) in made.items():
                start = time.process_time()
                work[job]()
                spent[name].append(time.process_time() - start)
        medians = {name: round(statistics.median(values), 4) for name, values in spent.items()}
        result[job] = {**medians, "ratio": round(medians["longflow"] / medians["normflows"], 3)}
    command = [sys.executable, __file__, "--width", str(flags.width), "--batch", str(flags.batch), "--peak"]
    peaks = {
        name: float(subprocess.run([*command, name], capture_output=True, check=True, env=os.environ | STEADY).stdout)
        for name in MAKERS
    }
    result["peak MiB of a step"] = {**{name: round(p, 1) for name, p in peaks.items()}}
    result["peak MiB of a step"]["ratio"] = round(peaks["longflow"] / peaks["normflows"], 3)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

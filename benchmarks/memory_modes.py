"""Peak memory, time and gradient error of the three memory modes of a chain, against depth.

    python benchmarks/memory_modes.py --out memory.json [--figure memory.png]
    LONGFLOW_DATA=... python benchmarks/memory_modes.py --gradients RUN [RUN ...]

Memory and time: affine Glow (3 scales, width 64) on batches of 128 events of 3x32x32, float32, one thread, one
training step (forward and backward). Each setting is a process. Peak memory is the high-water mark of the resident set
during the step minus what was resident before it, when weights and gradients were there already (Linux). Time is CPU
time, the lesser of two steps.
Gradients: relative error ‖g - g_full‖ / ‖g_full‖ of each mode on a batch of test events, under the trained weights.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

import longflow
from longflow.bijections import adapt
from longflow.commands.evaluate import dataset_of, fixed_draws
from longflow.models import assemble, put_weights
from longflow.runs import Run

MODES = ("full", "checkpoint", "reversible")
DEPTHS = (4, 8, 16, 32, 64)
BATCH, WIDTH, STEPS = 128, 64, 2
STEADY = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""So that freed memory goes back at once, and the resident set is what is used."""


def resident(key):
    """Return a line of /proc/self/status, in MiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def measure(mode, depth):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    flow = longflow.build("glow", (3, 32, 32), scales=3, depth=depth, width=WIDTH, memory=mode)
    x = torch.rand(BATCH, 3, 32, 32)
    adapt(flow, x)
    (-flow.log_prob(x[:1]).mean()).backward()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    spent = []
    for _ in range(STEPS):
        start = time.process_time()
        (-flow.log_prob(x).mean()).backward()
        spent.append(time.process_time() - start)
    peak = resident("VmHWM") - before
    print(json.dumps({"mode": mode, "depth": depth, "peak_mib": round(peak, 1), "cpu_s": round(min(spent), 3)}))


def gradients(path):
    """Print the relative error of each mode's gradient under a run's weights."""
    run = Run.open(path)
    rows = torch.from_numpy(dataset_of(run).split("test")[:BATCH]).float()
    found = {}
    for mode in MODES:
        config = run.config()
        config["options"] = {**config["options"], "memory": mode}
        model = assemble(config)
        put_weights(model, run.weights(), str(path))
        with fixed_draws(0):
            (-model(rows).mean()).backward()
        found[mode] = torch.cat([p.grad.flatten() for p in model.parameters()]).double()
    exact = found["full"]
    errors = {mode: ((g - exact).norm() / exact.norm()).item() for mode, g in found.items()}
    print(json.dumps({"run": Path(path).name, "relative_gradient_error": errors}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--one", nargs=2)
    parser.add_argument("--gradients", nargs="+", default=[])
    flags = parser.parse_args()
    for path in flags.gradients:
        gradients(path)
    if flags.one:
        measure(flags.one[0], int(flags.one[1]))
    if flags.out:
        lines = []
        for depth in DEPTHS:
            for mode in MODES:
                command = [sys.executable, __file__, "--one", mode, str(depth)]
                lines.append(
                    json.loads(
                        subprocess.run(
                            command, capture_output=True, text=True, check=True, env=os.environ | STEADY
                        ).stdout
                    )
                )
                print(lines[-1], flush=True)
        flags.out.write_text(json.dumps({"torch": torch.__version__, "lines": lines}, indent=1) + "\n")
    if flags.figure:
        draw(json.loads(flags.out.read_text())["lines"], flags.figure)


def draw(lines, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, key, title in ((axes[0], "peak_mib", "peak memory of a step, MiB"), (axes[1], "cpu_s", "CPU seconds")):
        for mode in MODES:
            own = [line for line in lines if line["mode"] == mode]
            axis.plot([line["depth"] for line in own], [line[key] for line in own], "o-", label=mode)
        axis.set(xlabel="steps K in each of 3 scales", title=title)
        axis.set(xscale="log", yscale="log", xticks=DEPTHS, xticklabels=DEPTHS)
        axis.minorticks_off()
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()

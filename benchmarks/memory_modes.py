"""Peak memory, time and gradient error of the three memory modes of a chain, against depth.

    python benchmarks/memory_modes.py --out memory.json [--figure memory.png]
    LONGFLOW_DATA=... python benchmarks/memory_modes.py --gradients RUN [RUN ...]

Memory and time: affine Glow (3 scales, width 64) on batches of 128 events of 3x32x32, float32, one thread, one
training step (forward and backward). Each setting is a process. Peak memory is the high-water mark of the resident set
during the step minus what was resident before it, when weights and gradients were there already (Linux). Time is CPU
time, the lesser of two steps.
Gradients: relative error ‖g - g_full‖ / ‖g_full‖ of each mode on 32 test events, under the trained weights, and that of
full memory in float32 against float64.
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
from longflow.commands.datasets import dataset_of
from longflow.models import assemble, put_weights
from longflow.runs import Run
from longflow.seeds import fixed_draws

MODES = ("full", "checkpoint", "reversible")
DEPTHS = (4, 8, 16, 32, 64)
BATCH, WIDTH, STEPS = 128, 64, 2
GRADIENT_BATCH = 32
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
    """Print relative gradient errors under a run's weights: between modes, and of float32 against float64."""
    run = Run.open(path)
    rows = torch.from_numpy(dataset_of(run).split("test")[:GRADIENT_BATCH]).float()
    with fixed_draws(0):
        x = rows + torch.rand_like(rows)

    def gradient(mode, trunk, dtype=torch.float32):
        config = run.config()
        config["options"] = {**config["options"], "memory": mode, "trunk": trunk}
        model = assemble(config)
        put_weights(model, run.weights(), str(path))
        model.to(dtype)
        (-model.density.log_prob(x.to(dtype)).mean()).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()]).double()

    exact = gradient("full", "float64", torch.float64)
    for trunk in ("float64", "float32"):
        full = gradient("full", trunk)
        line = {"run": Path(path).name, "trunk": trunk, "full against float64": relative(full, exact)}
        print(json.dumps(line | {m: relative(gradient(m, trunk), full) for m in ("checkpoint", "reversible")}))


def relative(a, b):
    return float(f"{((a - b).norm() / b.norm()).item():.3g}")


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

"""The likelihood of NICE runs on 8-bit pictures in every convention that papers and the essay use, side by side.

    LONGFLOW_DATA=... python benchmarks/nice_conventions.py RUN [RUN ...]

Prints a table in Markdown: test bits/dim; the paper's nats on [0, 1]^D (uniform dequantisation, bin 1/256); and the
essay's loss, which drops ½ D log 2π and scores data without noise, in units of x/255.
"""

import math
import sys

import torch

from longflow.commands.datasets import dataset_of
from longflow.commands.evaluate import log_likelihoods
from longflow.commands.rows import batches_of
from longflow.models import load
from longflow.runs import Run
from longflow.training.device import prepare
from longflow.units import standard_error


def essay_loss(model, rows):
    """-log p(x/255) - ½ D log 2π at the noise-free point, which a run with --noise -1.55 1 has at the level x + 1."""
    with torch.inference_mode():
        nats = torch.cat([model.density.log_prob(x + 1) for x in batches_of(model, rows)]).double()
    return (-nats - model.dims * (math.log(255) + 0.5 * math.log(2 * math.pi))).mean().item()


def main(paths):
    device = prepare("auto")
    print("| run | seconds of training rows | test bits/dim | nats on [0,1]^D | essay's loss, test | best epoch |")
    print("|---|--:|--:|--:|--:|--:|")
    for path in paths:
        run = Run.open(path)
        model = load(path).to(device)
        rows = dataset_of(run).split("test")
        nats = log_likelihoods(model, rows, seed=0)
        bits = -nats / model.dims / math.log(2)
        ours = nats + model.dims * math.log(256)
        metrics = run.metrics()
        best = min(metrics, key=lambda r: r["validation_bits_per_dim"])
        config = run.config()
        loss = f"{essay_loss(model, rows):.0f}" if config["noise"] else "not meant"
        print(
            f"| {run.path.name} | {config['recipe']['batch'] * metrics[-1]['step'] / metrics[-1]['rows_per_s']:.0f} s "
            f"| {bits.mean():.4f} ± {standard_error(bits):.4f} | {ours.mean():.1f} ± {standard_error(ours):.1f} "
            f"| {loss} | {best['epoch']} of {metrics[-1]['epoch']} |"
        )
    for path in paths:
        print(f"\n{Run(path).path.name}, validation nats on [0,1]^D by epoch (± standard error):")
        for r in Run(path).metrics():
            dims = math.prod(Run(path).config()["shape"])
            nats = r["validation_nats"] + dims * math.log(256)
            print(f"  {r['epoch']:>3}  {nats:8.1f} ± {r['validation_stderr'] * dims * math.log(2):.1f}")


if __name__ == "__main__":
    main(sys.argv[1:])

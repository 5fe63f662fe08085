"""A whole Glow's log_prob and sample under torch.compile(fullgraph=True): the same numbers, and how much faster.

    python benchmarks/compiled_glow.py [--depth 8] [--threads 1]

Affine Glow, 3 scales, width 64, batch 32 of 3x32x32, float32, Inductor (needs a C++ compiler). Medians of seconds over
alternating turns. Weights are moved by 0.02, so that no coupling is the identity; differences are the largest, relative
to the largest value.
"""

import argparse
import json
import statistics
import time

import torch

import longflow
from longflow.bijections import adapt


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    torch.manual_seed(0)
    flow = longflow.build("glow", (3, 32, 32), scales=3, depth=flags.depth, width=64).eval()
    x = torch.rand(32, 3, 32, 32)
    adapt(flow, x)
    with torch.no_grad():
        for p in flow.parameters():
            p += 0.02 * torch.randn_like(p)
    result = {"depth": flags.depth, "threads": flags.threads, "torch": torch.__version__}
    with torch.no_grad():
        z = flow.base.sample(32)
        for name, eager, given in (("log_prob", flow.log_prob, x), ("decode", flow.decode, z)):
            compiled = torch.compile(eager, fullgraph=True)
            compiling = seconds(lambda c=compiled, g=given: c(g))
            difference = (compiled(given) - eager(given)).abs().max() / eager(given).abs().max()
            turns = [(seconds(lambda: eager(given)), seconds(lambda: compiled(given))) for _ in range(15)]  # noqa: B023
            plain, fast = (statistics.median(t) for t in zip(*turns, strict=True))
            result[name] = {
                "eager_s": round(plain, 4),
                "compiled_s": round(fast, 4),
                "speed_up": round(plain / fast, 2),
                "compiling_s": round(compiling, 1),
                "relative_difference": difference.item(),
            }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

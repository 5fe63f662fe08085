"""Do densities of one number integrate to one over the whole line? Ours and zuko's, at the start and after training.

    python benchmarks/whole_line.py --out OUT [--steps 60] [--seeds 2] [--models NAF GF]

In an environment with zuko. Every model has three transforms and hidden layers of 64, twice, where zuko's own defaults
do not say otherwise, is trained by Adam at 1e-2 on batches of 256 draws of ½ N(-2, ½²) + ½ N(2, ½²), and computes in
float64. The integral is over ±1e30, by trapezoids that are halved where the density changes. Writes a line for each
model and seed to OUT/whole_line.jsonl: the integral, how far f(±1e6) lies out, the round trip |f⁻¹(f(x)) - x| from
x = ±30 and ±1e6, and nats of 20,000 other draws.
"""

import argparse
import json
import math
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch
import zuko

import longflow
from longflow.bijections import Affine, Autoregressive, Chain, Learned, LogisticMixture, SumOfSquares
from longflow.distributions import Flow, StandardNormal
from longflow.nets import MADE

WIDTHS = (64, 64)


def of(transform):
    """Three autoregressive layers of an elementwise map."""

    def layer():
        net = MADE(1, transform().parameters_per_feature, hidden=WIDTHS[0], depth=len(WIDTHS))
        return Chain(Autoregressive(transform(), net), Learned(Affine(), (1,)))

    return Flow(Chain(*(layer() for _ in range(3))), StandardNormal((1,)))


OURS = {
    "naf dsf": lambda: longflow.build("naf", (1,), hidden=WIDTHS[0]),
    "naf ddsf": lambda: longflow.build("naf", (1,), preset="dense", hidden=WIDTHS[0]),
    "nsf": lambda: longflow.build("nsf", (1,), kind="autoregressive", layers=3, hidden=WIDTHS[0]),
    "sum of squares": lambda: of(SumOfSquares),
    "logistic mixture": lambda: of(LogisticMixture),
}
ZUKOS = {
    "NAF": lambda: zuko.flows.NAF(1, transforms=3, hidden_features=WIDTHS),
    "SOSPF": lambda: zuko.flows.SOSPF(1, transforms=3, hidden_features=WIDTHS),
    "GF": lambda: zuko.flows.GF(1, transforms=3, hidden_features=WIDTHS),
    "NSF": lambda: zuko.flows.NSF(1, transforms=3, hidden_features=WIDTHS),
    "BPF": lambda: zuko.flows.BPF(1, transforms=3, hidden_features=WIDTHS),
}


class Zuko:
    """A flow of zuko's, asked as ours are."""

    def __init__(self, flow):
        self.flow, self.parameters = flow, flow.parameters

    def log_prob(self, x):
        return self.flow().log_prob(x)

    def encode(self, x):
        return self.flow().transform(x)

    def decode(self, z):
        return self.flow().transform.inv(z)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--models", nargs="*", default=[*OURS, *ZUKOS], choices=[*OURS, *ZUKOS])
    flags = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    flags.out.mkdir(parents=True, exist_ok=True)
    makers = [(f"longflow {longflow.__version__}", name, make) for name, make in OURS.items()]
    makers += [(f"zuko {version('zuko')}", name, lambda m=make: Zuko(m())) for name, make in ZUKOS.items()]
    with (flags.out / "whole_line.jsonl").open("a") as lines:
        for library, name, make in (maker for maker in makers if maker[1] in flags.models):
            for seed in range(flags.seeds):
                torch.manual_seed(seed)
                model = make()
                common = {
                    "library": library,
                    "model": name,
                    "seed": seed,
                    "commit": commit(),
                    "torch": torch.__version__,
                }
                start = measured(model)
                fit(model, flags.steps)
                for steps, found in ((0, start), (flags.steps, measured(model))):
                    lines.write(json.dumps(common | {"steps": steps} | found) + "\n")
                    lines.flush()
                    print(library, name, seed, steps, found)


def draws(n):
    return 2.0 * (2 * torch.randint(2, (n, 1)) - 1) + 0.5 * torch.randn(n, 1)


def fit(model, steps):
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        (-model.log_prob(draws(256)).mean()).backward()
        optimiser.step()


@torch.no_grad()
def measured(model):
    torch.manual_seed(1000)
    far = torch.tensor([[-30.0], [30.0], [-1e6], [1e6]])
    away = (model.decode(model.encode(far)) - far).abs().flatten().tolist()
    found, lost = integral(model)
    return {
        "integral": found,
        "not_numbers": lost,
        "image": [told(z) for z in model.encode(far[2:]).flatten().tolist()],
        "round_trip_30": told(max(away[:2])),
        "round_trip_1e6": told(max(away[2:])),
        "nats": model.log_prob(draws(20000)).mean().item(),
    }


def told(number):
    """JSON has no infinity."""
    return number if math.isfinite(number) else str(number)


def integral(model):
    """Return ∫ p over ±1e30, and the number of points at which p is not a number, which count as nought."""
    near = torch.linspace(-20, 20, 8001)
    x = torch.cat((torch.sinh(torch.linspace(-69, 69, 8001)), near)).sort().values
    for _ in range(5):
        p = density(model, x)[0]
        worst = (p.diff().abs() * x.diff()).topk(2000).indices
        x = torch.cat((x, (x[worst] + x[worst + 1]) / 2)).sort().values
    p, lost = density(model, x)
    return torch.trapezoid(p, x).item(), lost


def density(model, x):
    p = torch.cat([model.log_prob(part[:, None]).exp() for part in x.split(20000)])
    return p.nan_to_num(0.0), int(p.isnan().sum())


def commit():
    asked = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return asked.stdout.strip()


if __name__ == "__main__":
    main()

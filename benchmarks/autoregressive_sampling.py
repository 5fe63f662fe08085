"""What a sample of an autoregressive flow costs: by passes, by a walk, and as `inverse` chooses, beside the peers'.

    PYTHONPATH=src PEER_ENVIRONMENT/bin/python benchmarks/autoregressive_sampling.py [--out FILE] [--dims 16 64 256]

In an environment with torch, zuko, nflows and normflows. MAF of 5 affine layers, masked networks of 2 hidden layers of
100 units, float32, one thread; figures are medians of CPU milliseconds for a batch of rows, turns interleaved. The
peers take D passes whatever their weights, so they have their initial ones (normflows' layer is reversed, as its own
direction is that of IAF); our passes depend on the weights:

- initial: the identity; one pass shows it.
- factors: trained on x = F h + e, of D/8 factors, deviations 1 and 0.5: dependences are many and weak.
- series: trained on x_d = 0.9 x_(d-1) + 0.3 sin(2 x_(d-5)) + 0.4 e_d: dependences are as long as events are.

Training is 300 steps of Adam at 1e-3, batches of 256. `passes` are the most that any row of a layer needed, `tried` the
most that `inverse` tries, `walked` the share of rows that it walked. The error is the largest of |x - x'| from D
passes, in float32 and, of the same weights, in float64.
"""

import argparse
import json
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import normflows as nf
import torch
import zuko
from equal_time import commit_that_runs
from nflows.flows.autoregressive import MaskedAutoregressiveFlow

import longflow
from longflow.bijections import Autoregressive, adapt

LAYERS, HIDDEN, ROWS, STEPS, TURNS = 5, 100, (100, 1000), 300, 3


def factors(rows, dims):
    """Return rows of a factor model."""
    loadings = torch.randn(dims, dims // 8, generator=torch.Generator().manual_seed(5)) / (dims // 8) ** 0.5
    return torch.randn(rows, dims // 8) @ loadings.T + 0.5 * torch.randn(rows, dims)


def series(rows, dims):
    """Return rows of a nonlinear autoregressive series."""
    x = [torch.randn(rows) for _ in range(5)]
    for _ in range(dims + 50):
        x.append(0.9 * x[-1] + 0.3 * (2 * x[-5]).sin() + 0.4 * torch.randn(rows))
    return torch.stack(x[-dims:], 1)


DATA = {"initial": None, "factors": factors, "series": series}


def ours(dims, draw):
    """Return our MAF, trained on what `draw` gives, and the loss before and after."""
    torch.manual_seed(0)
    flow = longflow.build("maf", (dims,), layers=LAYERS, hidden=HIDDEN, depth=2)
    if draw is None:
        return flow.eval(), []
    adapt(flow, draw(2000, dims))
    optimiser = torch.optim.Adam(flow.parameters(), 1e-3)
    losses = []
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss = -flow.log_prob(draw(256, dims)).mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return flow.eval(), [losses[0], statistics.mean(losses[-20:])]


def peers(dims):
    """Return the peers' models: name to (log_prob, sample)."""
    torch.manual_seed(0)
    a = zuko.flows.MAF(dims, 0, transforms=LAYERS, hidden_features=(HIDDEN, HIDDEN)).eval()
    b = MaskedAutoregressiveFlow(dims, HIDDEN, LAYERS, 1, use_residual_blocks=False).eval()
    steps = []
    for _ in range(LAYERS):
        affine = nf.flows.MaskedAffineAutoregressive(dims, HIDDEN, num_blocks=1, use_residual_blocks=False)
        steps += [nf.flows.Reverse(affine), nf.flows.Permute(dims, mode="swap")]
    c = nf.NormalizingFlow(nf.distributions.DiagGaussian(dims, trainable=False), steps).eval()
    return {
        "zuko": (lambda x: a().log_prob(x), lambda n: a().sample((n,))),
        "nflows": (b.log_prob, b.sample),
        "normflows": (c.log_prob, c.sample),
    }


def by_passes(layer, z):
    """The inverse in D passes."""
    x = torch.zeros_like(z)
    for _ in range(z.shape[1]):
        x = layer.transform.inverse(z, layer.conditioner(x, None))[0]
    return x


def latents(flow, rows):
    """Return each autoregressive layer with what comes to its inverse when rows are sampled."""
    given = []
    layers = [m for m in flow.modules() if isinstance(m, Autoregressive)]
    torch.manual_seed(1)
    x = flow.sample(rows)
    hooks = [m.register_forward_hook(lambda m, _, out: given.append((m, out[0]))) for m in layers]
    flow.log_prob(x)
    for hook in hooks:
        hook.remove()
    return given


def passes_of(layer, z):
    """Return the passes after which every row is done."""
    return next(n for n in range(1, z.shape[1] + 2) if not len(layer.sweep(z, None, n)[2]))


def medians(jobs):
    """Return medians of CPU milliseconds of jobs, their turns interleaved."""
    spent = {name: [] for name in jobs}
    for turn in range(TURNS):
        for name, job in jobs.items():
            if turn and sum(spent[name]) > 8:
                continue
            start = time.process_time()
            job()
            spent[name].append(time.process_time() - start)
    return {name: round(1000 * statistics.median(values), 2) for name, values in spent.items()}


@torch.no_grad()
def measure(dims, rows, flows, models):
    """Yield the lines of one size."""
    x = torch.randn(rows, dims)
    jobs = {f"{name} {job}": lambda f=f, a=a: f(a) for name, two in models.items()
            for job, f, a in (("log_prob", two[0], x), ("sample", two[1], rows))}  # fmt: skip
    given = {name: latents(flow, rows) for name, (flow, _) in flows.items()}
    jobs["ours log_prob"] = lambda: flows["initial"][0].log_prob(x)
    jobs["ours D passes"] = lambda: [by_passes(layer, z) for layer, z in given["initial"]]
    for name, (flow, _) in flows.items():
        pairs = given[name]
        jobs[f"ours sample, {name}"] = lambda flow=flow: flow.sample(rows)
        jobs[f"ours passes, {name}"] = lambda pairs=pairs: [layer.sweep(z, None, z.shape[1] + 1) for layer, z in pairs]
        jobs[f"ours walk, {name}"] = lambda pairs=pairs: [
            layer._walked(layer.conditioner, z, None) for layer, z in pairs
        ]
    times = medians(jobs)
    best = min(times[f"{name} sample"] for name in models)
    for name, (flow, losses) in flows.items():
        left = [len(layer.sweep(z, None, layer._passes_worth(z))[2]) / rows for layer, z in given[name]]
        errors = {
            str(dtype)[6:]: max(
                (layer.inverse(z.to(dtype))[0] - by_passes(layer, z.to(dtype))).abs().max().item()
                for layer, z in latents(flow.to(dtype), 50)
            )
            for dtype in (torch.float64, torch.float32)
        }
        yield {
            "features": dims,
            "rows": rows,
            "weights": name,
            "loss": [round(v, 2) for v in losses],
            "passes": [passes_of(layer, z) for layer, z in given[name]],
            "tried": [layer._passes_worth(z) for layer, z in given[name]],
            "walked": round(statistics.mean(left), 3),
            "ms": {k.split(",")[0]: v for k, v in times.items() if "," not in k or k.endswith(name)},
            "sample_to_zuko": round(times[f"ours sample, {name}"] / times["zuko sample"], 4),
            "sample_to_best_peer": round(times[f"ours sample, {name}"] / best, 4),
            "sample_to_own_log_prob": round(times[f"ours sample, {name}"] / times["ours log_prob"], 1),
            "max_error": errors,
        }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--dims", type=int, nargs="+", default=[16, 64, 256])
    flags = parser.parse_args()
    torch.set_num_threads(1)
    versions = {name: version(name) for name in ("torch", "zuko", "nflows", "normflows")}
    commit = commit_that_runs()
    for dims in flags.dims:
        flows = {name: ours(dims, draw) for name, draw in DATA.items()}
        models = peers(dims)
        for rows in ROWS:
            for line in measure(dims, rows, flows, models):
                line |= {"layers": LAYERS, "hidden": HIDDEN, **versions, "commit": commit}
                print(json.dumps(line), flush=True)
                if flags.out:
                    with flags.out.open("a") as lines:
                        lines.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()

"""Densities on curves and on a sphere in space by rectangular flows, beside the true ones.

    python benchmarks/rectangular_toys.py train SET --out OUT [--steps 2000] [--lr 1e-3] [--seed 0]
    python benchmarks/rectangular_toys.py cost --out OUT
    python benchmarks/rectangular_toys.py draw --out OUT

`train`: SET is spiral, circle or sphere. The model is trained on 20,000 points; the averaged
weights that are best on 2,000 others (every 100 steps) are tested on 2,000 more; a line is added to
OUT/rectangular.jsonl and the weights are kept in OUT. The true density is known in closed form, with respect to length
or area; the model's is on its own manifold, at the projection: their difference means something where the distance to
it is small. `cost`: time of a training step, exact and by conjugate gradients, by the dimensions of the manifold.
`draw`: OUT/rectangular.png of the trained ones. CPU time of one thread is the clock.
"""

import argparse
import copy
import json
import math
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from equal_time import commit_that_runs
from torch.func import jacrev

from longflow.bijections import adapt
from longflow.families import ManifoldLikelihood
from longflow.figures.style import INK, MUTED, SEQUENTIAL, SMALL, WARM, dress, sheet, to_png
from longflow.models.rectangular import rectangular
from longflow.training import Batches, Recipe, State, train
from longflow.training.device import prepare

WEIGHT = 100.0
TRAINING, TEST = 20000, 2000
VALIDATE_EVERY = 100
FAR = 0.05
TORN = "distance > 0.05"


class Spiral:
    """((1 + t/4) cos 2t, (1 + t/4) sin 2t, t/2), t from a mixture of two normals: nearly two turns, open."""

    latent, line = 1, (-3.2, 3.2)
    weights, means, deviations = torch.tensor([0.6, 0.4]), torch.tensor([-1.2, 1.3]), torch.tensor([0.5, 0.4])

    def draw(self, n):
        k = torch.multinomial(self.weights, n, replacement=True)
        return self.means[k] + self.deviations[k] * torch.randn(n)

    def points(self, t):
        radius = 1 + t / 4
        return torch.stack((radius * (2 * t).cos(), radius * (2 * t).sin(), t / 2), 1)

    def log_prob(self, t):
        parts = torch.distributions.Normal(self.means, self.deviations).log_prob(t[:, None])
        speed = (1 / 16 + 4 * (1 + t / 4).square() + 1 / 4).sqrt()
        return (parts + self.weights.log()).logsumexp(1) - speed.log()


class Circle:
    """The unit circle, tilted by 30°, with two von Mises bumps: closed, so that one chart must cut it."""

    latent, line = 1, (-math.pi, math.pi)
    weights, means, kappa = torch.tensor([0.6, 0.4]), torch.tensor([-1.0, 1.0]), torch.tensor([2.0, 6.0])

    def draw(self, n):
        k = torch.multinomial(self.weights, n, replacement=True)
        return torch.distributions.VonMises(self.means, self.kappa).sample((n,))[torch.arange(n), k]

    def points(self, t):
        return torch.stack((t.cos(), math.cos(math.pi / 6) * t.sin(), math.sin(math.pi / 6) * t.sin()), 1)

    def log_prob(self, t):
        parts = torch.distributions.VonMises(self.means, self.kappa).log_prob(t[:, None])
        return (parts + self.weights.log()).logsumexp(1)


class Sphere:
    """The unit sphere with three von Mises-Fisher bumps: κ exp(κ μᵀx) / 4π sinh κ each. No chart covers it."""

    latent = 2
    weights, kappa = torch.tensor([0.4, 0.35, 0.25]), torch.tensor([4.0, 6.0, 3.0])
    means = torch.tensor([[1.0, 0.0, 0.3], [-0.4, 1.0, 0.6], [0.2, -1.0, 0.4]])

    def __init__(self):
        self.means = self.means / torch.linalg.vector_norm(self.means, dim=1, keepdim=True)

    def draw(self, n):
        k = torch.multinomial(self.weights, n, replacement=True)
        kappa, mean = self.kappa[k], self.means[k]
        share = torch.rand(n)
        along = 1 + torch.log(share + (1 - share) * torch.exp(-2 * kappa)) / kappa
        side = torch.randn(n, 3)
        side = side - (side * mean).sum(1, keepdim=True) * mean
        side = side / torch.linalg.vector_norm(side, dim=1, keepdim=True)
        return along[:, None] * mean + (1 - along.square()).clamp_min(0).sqrt()[:, None] * side

    def points(self, t):
        return t

    def log_prob(self, t):
        constant = self.kappa.log() - math.log(2 * math.pi) - torch.log1p(-torch.exp(-2 * self.kappa)) - self.kappa
        return (constant + self.kappa * (t @ self.means.T) + self.weights.log()).logsumexp(1)


SETS = {"spiral": Spiral, "circle": Circle, "sphere": Sphere}


def build(name):
    data = SETS[name]()
    return data, rectangular((3,), latent=data.latent, couplings=6, width=64)


def train_one(name, out, steps, seed, lr):
    recipe = Recipe(batch=256, lr=lr, clip=5.0, ema=0.99)
    torch.manual_seed(seed)
    data, model = build(name)
    rows = data.points(data.draw(TRAINING))
    objective, batches = ManifoldLikelihood(WEIGHT), Batches(rows, None, recipe.batch, seed)
    adapt(model, rows[:2048])
    state = State(model, objective, recipe)
    held_out = data.points(data.draw(TEST))
    best, lowest, chosen = {}, math.inf, 0
    start = time.process_time()
    for progress in train(state, objective, batches, recipe, steps, batches.steps_per_epoch):
        if progress.step % VALIDATE_EVERY == 0:
            with torch.no_grad():
                ((_, loss),) = objective(state.best_weights.eval(), held_out, None)
            print(name, progress.step, round(progress.loss, 3), round(loss.item(), 3), file=sys.stderr)
            if loss.item() < lowest:
                best, lowest, chosen = copy.deepcopy(state.best_weights.state_dict()), loss.item(), progress.step
    spent = time.process_time() - start
    model = state.best_weights.eval()
    model.load_state_dict(best)
    torch.save(model.state_dict(), out / f"{name}.pt")
    t = data.draw(TEST)
    x, truth = data.points(t), data.log_prob(t)
    with torch.no_grad():
        found, distance = model.log_prob(x), model.distance(x)
    difference, near = truth - found, distance <= FAR
    say(
        {
            "what": name,
            "command": "python " + " ".join(["benchmarks/rectangular_toys.py", *sys.argv[1:]]),
            "commit": commit_that_runs(),
            "seed": seed,
            "torch": torch.__version__,
            "steps": steps,
            "best_step": chosen,
            "lr": lr,
            "weight": WEIGHT,
            "parameters": sum(p.numel() for p in model.parameters()),
            "cpu_s": round(spent, 1),
            "test_points": TEST,
            "entropy_nats": -truth.mean().item(),
            "kl_nats": difference.mean().item(),
            "kl_standard_error": difference.std().item() / math.sqrt(TEST),
            "log_prob_abs_error_mean": difference.abs().mean().item(),
            "log_prob_abs_error_median": difference.abs().median().item(),
            "log_prob_abs_error_mean_near": difference[near].abs().mean().item(),
            "distance_mean": distance.mean().item(),
            "distance_max": distance.max().item(),
            f"share_of_{TORN}": 1 - near.float().mean().item(),
            **log_volume_errors(model, x[:200]),
        },
        out,
    )


def log_volume_errors(model, x):
    """Return the largest errors of the log-volume against reverse-mode Jacobians in float64 and their Gram matrices."""
    with torch.no_grad():
        u = model._coordinates(x)
        single = model.log_volume(u).double()
    model.double()
    u = u.double()
    with torch.no_grad():
        double = model.log_volume(u)
    jacobians = torch.stack([jacrev(lambda row: model._embed(row[None])[0])(row) for row in u]).detach()
    oracle = 0.5 * torch.linalg.slogdet(jacobians.mT @ jacobians).logabsdet
    model.float()
    return {
        "log_volume_error_float64": (double - oracle).abs().max().item(),
        "log_volume_error_float32": (single - oracle).abs().max().item(),
    }


def cost(out):
    torch.manual_seed(0)
    for dims, latent in ((3, 2), (16, 8), (64, 32), (128, 64), (256, 128)):
        seconds = {"exact": [], "hutchinson": []}
        models = {way: rectangular((dims,), latent=latent, couplings=4, log_volume=way).train() for way in seconds}
        x = torch.randn(64, dims) @ torch.randn(dims, dims) / math.sqrt(dims)
        adapt(models["exact"], x)
        stir(models["exact"])
        models["hutchinson"].load_state_dict(models["exact"].state_dict())
        for turn in range(4):
            for way, model in models.items():
                start = time.process_time()
                ((_, loss),) = ManifoldLikelihood(WEIGHT)(model, x, None)
                loss.backward()
                if turn:
                    seconds[way].append(time.process_time() - start)
        medians = {f"{way}_s": statistics.median(found) for way, found in seconds.items()}
        line = {"what": "cost of a step", "numbers": dims, "latent": latent, "batch": 64, "probes": 1, **medians}
        line["hutchinson_over_exact"] = line["hutchinson_s"] / line["exact_s"]
        say({**line, "commit": commit_that_runs(), "seed": 0}, out)


def stir(model):
    """Move the weights from where they start: the condition of J, hence the number of iterations, depends on them."""
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p) / math.sqrt(max(1, p.shape[-1] if p.dim() else 1))


def draw(out):
    figure = sheet(12.5, 9.0)
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.12)
    grid = figure.subplots(3, 4, width_ratios=(1, 1, 1.15, 1.15))
    for row, name in enumerate(SETS):
        data, model = build(name)
        model.load_state_dict(torch.load(out / f"{name}.pt", weights_only=True))
        model.eval()
        torch.manual_seed(1)
        for place in grid[row, :2]:
            place.remove()
        views = [figure.add_subplot(3, 4, 4 * row + k, projection="3d") for k in (1, 2)]
        with torch.no_grad():
            t = data.draw(3000)
            rows, samples = data.points(t), model.sample(3000)
            cloud(views[0], rows, data.log_prob(t).exp(), rows, f"{name}: data")
            cloud(views[1], samples, model.log_prob(samples).exp(), rows, f"{name}: samples")
            (surface if data.latent == 2 else along)(grid[row, 2], grid[row, 3], data, model)
    (out / "rectangular.png").write_bytes(to_png(figure))


def cloud(place, rows, density, frame, title):
    """Scatter points in the colour of their density, with the axes of `frame`; what lies outside is not shown."""
    low, high = frame.amin(0) - 0.1, frame.amax(0) + 0.1
    inside = ((rows > low) & (rows < high)).all(1)
    colours = SEQUENTIAL((0.35 + 0.65 * density / density[inside].quantile(0.99)).clamp(0, 1).numpy())
    place.scatter(*rows[inside].T.numpy(), s=4, c=colours[inside.numpy()], linewidths=0, depthshade=False)
    place.set_title(title, fontsize=10, color=INK, loc="left")
    place.set_box_aspect((high - low).tolist(), zoom=1.15)
    for axis, ends in zip("xyz", zip(low.tolist(), high.tolist(), strict=True), strict=True):
        place.set(**{f"{axis}lim": ends, f"{axis}ticklabels": []})


def along(left, right, data, model):
    t = torch.linspace(*data.line, 1200)
    x = data.points(t)
    steps = torch.linalg.vector_norm(x[1:] - x[:-1], dim=1)
    length = torch.cat((torch.zeros(1), steps.cumsum(0)))
    dress(left, title="density by length", x="length along the curve", y="density")
    left.plot(length, data.log_prob(t).exp(), color=INK, lw=3, alpha=0.3, label="true")
    left.plot(length, model.log_prob(x).exp(), color=WARM, lw=1.2, label="learned")
    left.legend(fontsize=SMALL, frameon=False, labelcolor=MUTED)
    dress(right, title="distance to the learned curve", x="length along the curve", y="")
    right.plot(length, model.distance(x), color=WARM, lw=1.2)
    right.set_yscale("log")


def surface(left, right, data, model):
    longitude, height = torch.linspace(-math.pi, math.pi, 361), torch.linspace(-1, 1, 181)
    h, a = torch.meshgrid(height, longitude, indexing="ij")
    ring = (1 - h.square()).sqrt()
    x = torch.stack((ring * a.cos(), ring * a.sin(), h), 2).reshape(-1, 3)
    truth, found = data.log_prob(x).exp().reshape(h.shape), model.log_prob(x).exp().reshape(h.shape)
    distance = model.distance(x).reshape(h.shape)
    box = {"extent": (-180, 180, -1, 1), "aspect": "auto", "origin": "lower", "vmin": 0, "vmax": truth.max().item()}
    for place, heat, title in ((left, truth, "true density by area"), (right, found, "learned")):
        place.imshow(heat, cmap=SEQUENTIAL, **box)
        dress(place, title=title, x="longitude, degrees", y="height" if place is left else "")
    right.contour(np.degrees(longitude.numpy()), height.numpy(), distance.numpy(), [FAR], colors=[WARM], linewidths=1)
    right.plot([], [], color=WARM, lw=1, label=TORN)
    right.legend(fontsize=SMALL, loc="lower left", labelcolor=MUTED)


def say(line, out):
    print(json.dumps(line), flush=True)
    with (out / "rectangular.jsonl").open("a") as lines:
        lines.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("train", "cost", "draw"))
    parser.add_argument("set", nargs="?", choices=tuple(SETS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    prepare("cpu", 1)
    flags.out.mkdir(parents=True, exist_ok=True)
    if flags.what == "train":
        train_one(flags.set, flags.out, flags.steps, flags.seed, flags.lr)
    else:
        {"cost": cost, "draw": draw}[flags.what](flags.out)

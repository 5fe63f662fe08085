"""Variational inference on posteriors of posteriordb: ELBO, evidence, weights, and marginals against reference draws.

    LONGFLOW_DATA=... python benchmarks/posteriors.py fit --out FILE [--targets ...] [--families ...] [--seeds 0]
    LONGFLOW_DATA=... python benchmarks/posteriors.py check

The log-densities are written anew from the models' statements, normalised, on the whole space (with the Jacobians of
the maps that lead there). `check` holds them against what they did not see: by Stein's identity E[s] = 0 and
E[u sᵀ] = -I over the reference draws, s the score; and evidences, where a quadrature over one parameter gives them.
Every family starts from Laplace's approximation. Errors are of means, in reference deviations, and of deviations, as
ratios, the largest over parameters; the reference's own noise is 1/√5000 = 0.014 of a deviation in each mean. A line
for each target, family and seed.
"""

import argparse
import hashlib
import json
import math
import os
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
from simulators import commit
from torch.distributions import Cauchy, Gamma, MultivariateNormal, Normal, Poisson

import longflow
from longflow.bijections import Affine, Chain, Learned, Standardise
from longflow.distributions import Flow, StandardNormal
from longflow.inference import fit_density, importance, laplace
from longflow.training import Recipe

LOG_2 = math.log(2)
RECIPE = Recipe(batch=128, lr=3e-3, clip=10.0, ema=0.99)
DIRECT = Recipe(batch=128, lr=3e-2, clip=10.0, ema=0.99)
"""For families whose parameters are the moments themselves: at a flow's rate they would not arrive in time."""

DRAWS = 50_000


def half_cauchy(x, scale):
    return Cauchy(0.0, scale).log_prob(x) + LOG_2


class EightSchools:
    """u = (8 standardised effects, μ, log τ); effects θ = μ + τ·standardised."""

    stored, data, dims = "eight_schools-eight_schools_noncentered", "eight_schools", 10

    def __init__(self, data):
        self.y, self.sigma = data["y"], data["sigma"]

    def __call__(self, u):
        effects, mu, log_tau = u[:, :8], u[:, 8], u[:, 9]
        theta = mu[:, None] + log_tau.exp()[:, None] * effects
        prior = Normal(0.0, 1.0).log_prob(effects).sum(1) + Normal(0.0, 5.0).log_prob(mu)
        scale = half_cauchy(log_tau.exp(), 5.0) + log_tau
        return prior + scale + Normal(theta, self.sigma).log_prob(self.y).sum(1)

    def constrained(self, u):
        return torch.cat((u[:, 8:9] + u[:, 9:].exp() * u[:, :8], u[:, 8:9], u[:, 9:].exp()), 1)

    def free(self, theta):
        mu, tau = theta[:, 8:9], theta[:, 9:]
        return torch.cat(((theta[:, :8] - mu) / tau, mu, tau.log()), 1)


class Regression:
    """u = (β, log σ) of y ~ N(X β, σ²), β ~ N(0, s²) or flat: given σ all is normal: a quadrature has the evidence."""

    slope_scale = 10.0

    def __init__(self, data):
        self.x, self.y = self.rows(data)
        self.dims = self.x.shape[1] + 1

    def __call__(self, u):
        beta, log_sigma = u[:, :-1], u[:, -1]
        fit = Normal(beta @ self.x.T, log_sigma.exp()[:, None]).log_prob(self.y).sum(1)
        slopes = 0.0 if self.slope_scale is None else Normal(0.0, self.slope_scale).log_prob(beta).sum(1)
        return fit + slopes + self.scale_prior(log_sigma.exp()) + log_sigma

    def constrained(self, u):
        return torch.cat((u[:, :-1], u[:, -1:].exp()), 1)

    def free(self, theta):
        return torch.cat((theta[:, :-1], theta[:, -1:].log()), 1)

    def evidence(self, mode):
        log_sigma = mode[-1] + torch.linspace(-1.5, 1.5, 3001).double()
        given = torch.stack([self._given(s.exp()) for s in log_sigma])
        heights = given + self.scale_prior(log_sigma.exp()) + log_sigma
        return float(heights.logsumexp(0) + (log_sigma[1] - log_sigma[0]).log())

    def _given(self, sigma):
        """Return log p(y | σ), from the normal distribution of y itself (or, of flat β, from its residuals)."""
        n, k = self.x.shape
        if self.slope_scale is not None:
            covariance = sigma**2 * torch.eye(n).double() + self.slope_scale**2 * self.x @ self.x.T
            return MultivariateNormal(torch.zeros(n).double(), covariance).log_prob(self.y)
        q, r = torch.linalg.qr(self.x)
        squares = self.y.square().sum() - (q.T @ self.y).square().sum()
        return (
            -0.5 * squares / sigma**2
            - (n - k) * (sigma.log() + 0.5 * math.log(2 * math.pi))
            - r.diagonal().abs().log().sum()
        )


class KidScores(Regression):
    stored, data, slope_scale = "kidiq-kidscore_momiq", "kidiq", None

    def rows(self, data):
        return torch.stack((torch.ones_like(data["mom_iq"]), data["mom_iq"]), 1), data["kid_score"]

    def scale_prior(self, sigma):
        return half_cauchy(sigma, 2.5)


class AR5(Regression):
    stored, data = "arK-arK", "arK"

    def rows(self, data):
        y, k = data["y"], int(data["K"])
        lags = [y[k - j : len(y) - j] for j in range(1, k + 1)]
        return torch.stack((torch.ones(len(y) - k).double(), *lags), 1), y[k:]

    def scale_prior(self, sigma):
        return half_cauchy(sigma, 2.5)


class BLR(Regression):
    stored, data = "sblrc-blr", "sblrc"

    def rows(self, data):
        return data["X"], data["y"]

    def scale_prior(self, sigma):
        return Normal(0.0, 10.0).log_prob(sigma) + LOG_2


class PoissonProcess:
    """u = (log ρ, log α, f̃): counts of rates exp f, f = L f̃ a Gaussian process of length ρ and amplitude α."""

    stored, data, dims = "gp_pois_regr-gp_pois_regr", "gp_pois_regr", 13

    def __init__(self, data):
        self.gaps, self.counts = (data["x"][:, None] - data["x"]).square(), data["k"]

    def _factor(self, rho, alpha):
        kernel = alpha[:, None, None].square() * (-0.5 * self.gaps / rho[:, None, None].square()).exp()
        return torch.linalg.cholesky(kernel + 1e-10 * torch.eye(11).double())

    def __call__(self, u):
        rho, alpha, white = u[:, 0].exp(), u[:, 1].exp(), u[:, 2:]
        f = (self._factor(rho, alpha) @ white[..., None])[..., 0]
        prior = Gamma(25.0, 4.0).log_prob(rho) + Normal(0.0, 2.0).log_prob(alpha) + LOG_2 + u[:, 0] + u[:, 1]
        return prior + Normal(0.0, 1.0).log_prob(white).sum(1) + Poisson(f.exp()).log_prob(self.counts).sum(1)

    def constrained(self, u):
        rho, alpha = u[:, 0].exp(), u[:, 1].exp()
        f = (self._factor(rho, alpha) @ u[:, 2:, None])[..., 0]
        return torch.cat((rho[:, None], alpha[:, None], f), 1)

    def free(self, theta):
        factor = self._factor(theta[:, 0], theta[:, 1])
        white = torch.linalg.solve_triangular(factor, theta[:, 2:, None], upper=False)[..., 0]
        return torch.cat((theta[:, :2].log(), white), 1)


class Garch:
    """u = (μ, log α₀, logit α₁, logit β₁/(1 - α₁)): σ_t² = α₀ + α₁ (y_{t-1} - μ)² + β₁ σ_{t-1}²."""

    stored, data, dims = "garch-garch11", "garch", 4

    def __init__(self, data):
        self.y, self.first = data["y"], data["sigma1"]

    def __call__(self, u):
        mu, a0, a1, b1 = self.constrained(u).T
        squares = (self.y[None] - mu[:, None]).square()
        variance = [torch.full_like(mu, float(self.first) ** 2)]
        for t in range(1, len(self.y)):
            variance.append(a0 + a1 * squares[:, t - 1] + b1 * variance[-1])
        variances = torch.stack(variance, 1)
        fit = -0.5 * (squares / variances + variances.log() + math.log(2 * math.pi)).sum(1)
        share = torch.nn.functional.logsigmoid
        jacobian = u[:, 1] + share(u[:, 2]) + 2 * share(-u[:, 2]) + share(u[:, 3]) + share(-u[:, 3])
        return fit + jacobian

    def constrained(self, u):
        a1 = u[:, 2].sigmoid()
        return torch.stack((u[:, 0], u[:, 1].exp(), a1, (1 - a1) * u[:, 3].sigmoid()), 1)

    def free(self, theta):
        mu, a0, a1, b1 = theta.T
        return torch.stack((mu, a0.log(), a1.logit(), (b1 / (1 - a1)).logit()), 1)


TARGETS = {
    "eight_schools": EightSchools,
    "kidscore_momiq": KidScores,
    "arK": AR5,
    "gp_pois_regr": PoissonProcess,
    "garch11": Garch,
    "sblrc": BLR,
}


def mean_field(found, dims):
    deviations = found.scale_tril.square().sum(1).sqrt()
    return Flow(Chain(Standardise(found.mode, deviations), Learned(Affine(), (dims,))), StandardNormal((dims,)))


def full_rank(found, dims):
    flow = Flow(Learned(Affine(), (dims,)), StandardNormal((dims,)))
    flow.preprocess(found.whitening())
    return flow


def whitened(name, **options):
    def family(found, dims):
        flow = longflow.build(name, (dims,), **options)
        flow.preprocess(found.whitening())
        return flow

    return family


def unfitted(found, dims):
    return found.flow()


FAMILIES = {
    "laplace": (unfitted, RECIPE, 0),
    "mean-field": (mean_field, DIRECT, 3000),
    "full-rank": (full_rank, DIRECT, 3000),
    "realnvp": (whitened("realnvp", width=32, blocks=1), RECIPE, 1500),
    "nsf": (whitened("nsf", layers=4, hidden=32, blocks=1, bins=8, bound=6.0), RECIPE, 1500),
}
"""How to build, how to train, and for how many steps."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("fit", "check"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    flags = parser.parse_args()
    torch.set_num_threads(1)
    for name in flags.targets:
        target, reference, sha = opened(name)
        if flags.what == "check":
            check(name, target, reference)
            continue
        for seed in flags.seeds:
            for family in flags.families:
                one(name, target, reference, family, seed, flags.out, sha)


def opened(name):
    folder = Path(os.environ["LONGFLOW_DATA"]) / "posteriordb"
    kind = TARGETS[name]
    with zipfile.ZipFile(folder / "data" / f"{kind.data}.json.zip") as archive:
        stored = json.loads(archive.read(archive.namelist()[0]))
    file = folder / f"{kind.stored}.npz"
    draws = torch.from_numpy(np.load(file)["draws"]).double().flatten(0, 1)
    target = kind({key: torch.tensor(value, dtype=torch.float64) for key, value in stored.items()})
    return target, draws, hashlib.sha256(file.read_bytes()).hexdigest()


def check(name, target, reference):
    u = target.free(reference).requires_grad_()
    back = float((target.constrained(u.detach()) - reference).abs().max())
    (score,) = torch.autograd.grad(target(u).sum(), u)
    u = (u - u.mean(0)).detach()
    n = len(u)
    z_mean = score.mean(0) / (score.std(0) / math.sqrt(n))
    products = u[:, :, None] * score[:, None, :]
    z_second = (products.mean(0) + torch.eye(u.shape[1])) / (products.std(0) / math.sqrt(n))
    line = {
        "target": name,
        "stein_first_largest_z": float(z_mean.abs().max()),
        "stein_second_largest_z": float(z_second.abs().max()),
        "numbers": z_mean.numel() + z_second.numel(),
        "round_trip": back,
    }
    found = laplace(target, torch.zeros(target.dims))
    if isinstance(target, Regression):
        line["log_z_quadrature"] = target.evidence(found.mode)
    print(json.dumps({**line, "log_z_laplace": found.log_z}), flush=True)


def one(name, target, reference, family, seed, out, sha):
    torch.manual_seed(seed)
    start = time.process_time()
    found = laplace(target, torch.zeros(target.dims))
    build, recipe, steps = FAMILIES[family]
    flow = build(found, target.dims).double()
    if steps:
        fit_density(flow, target, steps=steps, recipe=recipe, seed=seed, draws=100)
    spent = time.process_time() - start
    weighted = importance(flow, target, DRAWS, seed=seed + 1)
    theta = target.constrained(weighted.samples)
    mean, std = reference.mean(0), reference.std(0)
    smooth = weighted.smoothed()
    centre, _ = smooth.mean(theta)
    spread = smooth.mean((theta - centre).square())[0].sqrt()
    line = {
        "target": name,
        "dims": target.dims,
        "family": family,
        "seed": seed,
        "steps": steps,
        "batch": recipe.batch,
        "lr": recipe.lr,
        "elbo": weighted.elbo,
        "elbo_stderr": weighted.elbo_stderr,
        "log_z": weighted.log_z,
        "log_z_stderr": weighted.log_z_stderr,
        "log_z_quadrature": target.evidence(found.mode) if isinstance(target, Regression) else None,
        "ess_share": weighted.ess / DRAWS,
        "k_hat": weighted.k_hat,
        "mean_error": float(((theta.mean(0) - mean).abs() / std).max()),
        "sd_ratio": furthest(theta.std(0) / std),
        "weighted_mean_error": float(((centre - mean).abs() / std).max()),
        "weighted_sd_ratio": furthest(spread / std),
        "reference_draws": len(reference),
        "draws": DRAWS,
        "cpu_s": spent,
        "data_sha256": sha,
        "torch": torch.__version__,
        "commit": commit(),
    }
    print(json.dumps(line), flush=True)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a") as lines:
            lines.write(json.dumps(line) + "\n")


def furthest(ratios):
    """Return the ratio that is furthest from 1."""
    return float(ratios[ratios.log().abs().argmax()])


if __name__ == "__main__":
    main()

"""Flows in Pyro, where the answers are known: as the guide of a posterior, and as a likelihood.

In the environment of the peers:

    python benchmarks/pyro_guide.py

Guide: of y = Xw + N(0, 1/2), w ~ N(0, I) in three dimensions, the posterior is normal and the evidence known. SVI of
a guide `pyro.sample("w", flow.distribution())`; bound, means and covariance are printed beside them.

Likelihood: x | c ~ N(A c + b, Σ), by a conditional flow `pyro.sample("x", flow.distribution(c), obs=x)` within a plate,
trained by SVI with an empty guide on rows drawn anew; the mean log-likelihood of test rows is printed beside the true
density's.
"""

import json
import math

import pyro
import torch
from pyro.distributions import MultivariateNormal, Normal
from pyro.infer import SVI, Trace_ELBO

import longflow
from longflow.bijections import Affine, Chain, Coupling, Learned, Reverse
from longflow.distributions import Flow, StandardNormal
from longflow.nets import MLP


def guide_of_a_posterior(steps=1200):
    torch.manual_seed(0)
    x, w = torch.randn(20, 3), torch.tensor([1.0, -2.0, 0.5])
    y = x @ w + 0.5 * torch.randn(20)
    covariance = torch.linalg.inv(torch.eye(3) + 4 * x.T @ x)
    mean = covariance @ (4 * x.T @ y)
    evidence = MultivariateNormal(torch.zeros(20), x @ x.T + 0.25 * torch.eye(20)).log_prob(y)
    flow = Flow(
        Chain(*(part for _ in range(2) for part in (Coupling(Affine(), MLP(1, 4, hidden=16, depth=1)), Reverse())),
              Learned(Affine(), (3,))),
        StandardNormal((3,)),
    )  # fmt: skip

    def model():
        prior = pyro.sample("w", Normal(torch.zeros(3), 1.0).to_event(1))
        mean = (x @ prior.unsqueeze(-1)).squeeze(-1)
        pyro.sample("y", Normal(mean, 0.5).to_event(1), obs=y)

    def guide():
        pyro.module("guide", flow)
        pyro.sample("w", flow.distribution())

    bound = Trace_ELBO(num_particles=16, vectorize_particles=True, max_plate_nesting=0)
    optimiser = pyro.optim.ClippedAdam({"lr": 1e-2, "lrd": 0.01 ** (1 / steps)})
    inference = SVI(model, guide, optimiser, bound)
    for _ in range(steps):
        inference.step()
    with torch.no_grad():
        draws = flow.sample(20000)
        values = torch.tensor([-inference.evaluate_loss() for _ in range(50)])
    return {
        "log_evidence": float(evidence),
        "elbo": float(values.mean()),
        "elbo_stderr": float(values.std() / math.sqrt(len(values))),
        "largest_error_of_mean_in_sd": float(((draws.mean(0) - mean) / covariance.diag().sqrt()).abs().max()),
        "largest_error_of_covariance_relative": float(
            ((draws.T.cov() - covariance).abs() / covariance.diag().sqrt().outer(covariance.diag().sqrt())).max()
        ),
    }


def likelihood_of_rows(steps=800):
    pyro.clear_param_store()
    torch.manual_seed(0)
    a, b = torch.tensor([[1.0, -1.0], [0.5, 2.0]]), torch.tensor([3.0, 0.0])
    scale = torch.tensor([[0.5, 0.0], [0.3, 0.2]])

    def draw(n):
        c = torch.randn(n, 2)
        return c, c @ a.T + b + torch.randn(n, 2) @ scale.T

    flow = longflow.build("realnvp", shape=(2,), context=2, width=32, blocks=1)
    c, x = draw(2000)
    longflow.bijections.adapt(flow, x, c)

    def model(c, x):
        pyro.module("flow", flow)
        with pyro.plate("rows", len(c)):
            pyro.sample("x", flow.distribution(c), obs=x)

    optimiser = pyro.optim.ClippedAdam({"lr": 5e-3, "lrd": 0.01 ** (1 / steps)})
    inference = SVI(model, lambda c, x: None, optimiser, Trace_ELBO())
    for _ in range(steps):
        inference.step(*draw(256))
    c, x = draw(5000)
    with torch.no_grad():
        own = flow.distribution(c).log_prob(x)
    true = MultivariateNormal(c @ a.T + b, scale_tril=scale).log_prob(x)
    error = (own - true).std() / math.sqrt(len(x))
    return {
        "true_nats": float(true.mean()),
        "flow_nats": float(own.mean()),
        "stderr_of_difference": float(error),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    pyro.set_rng_seed(0)
    print(json.dumps({"guide": guide_of_a_posterior()}), flush=True)
    print(json.dumps({"likelihood": likelihood_of_rows()}), flush=True)

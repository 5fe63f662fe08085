"""Autoencoders: the bound against closed forms, the catalogue's suite for them, their objective, and the doors."""

import itertools
import json
import math
import shutil

import numpy as np
import pytest
import torch
from doors import answer, refused
from tolerances import SIGMAS, close
from torch import nn
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import MultivariateNormal, kl_divergence
from torch.distributions import Normal as TorchNormal

import longflow
from longflow.bijections import Affine, Chain, Coupling, Inverse, Learned, Reverse, Standardise, adapt
from longflow.cli import main
from longflow.commands.inpaint import ascend, hide
from longflow.commands.interpolate import between
from longflow.commands.neighbours import nearest
from longflow.commands.watch import at_floor, warnings_of
from longflow.distributions import (
    Bernoulli,
    Categorical,
    ClassNormal,
    Dequantised,
    DiagonalNormal,
    EqualNormal,
    Flow,
    Given,
    LogisticMixture,
    Normal,
    NormalMixture,
    StandardNormal,
)
from longflow.errors import UsageError
from longflow.families import VAE, VampPrior
from longflow.models import CATALOGUE, assemble
from longflow.nets import MLP
from longflow.objectives import ELBO

SMALL = {
    "vae": {"latent": 3, "width": 8},
    "cvae": {"latent": 3, "width": 8, "classes": 3},
    "clustervae": {"latent": 3, "width": 8, "clusters": 3},
    "bnvae": {"latent": 3, "width": 8},
    "nvae": {"maps": 6, "growth": 1, "latents": 2, "cells": 1, "outer_cells": 1, "groups": 1},
    "fvae": {"layers": 1, "depth": 1, "width": 8, "maps": 4},
}
OWN = {"fvae": {"halvings": None, "scales": None}, "nvae": {"halvings": 1}}
"""Options that a preset fixes for its own data, and that the shapes here cannot take."""

SHAPES = [(2,), (7,), (1, 4, 4), (3, 6, 4)]
AUTOENCODERS = {
    name: model for name, model in CATALOGUE.items() if model.objective and issubclass(model.objective, ELBO)
}
CASES = [
    (name, preset, shape)
    for name, model in AUTOENCODERS.items()
    for preset in (None, *model.presets)
    for shape in SHAPES
    if (name != "nvae" and "conv" not in model.presets.get(preset, {}).get("network", "")) or len(shape) == 3
]


def test_every_autoencoder_is_tried():
    assert set(SMALL) == set(AUTOENCODERS)


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}-{'x'.join(map(str, case[2]))}")
def model(request):
    name, preset, shape = request.param
    torch.manual_seed(0)
    return longflow.build(name, shape=shape, preset=preset, levels=2, **SMALL[name], **OWN.get(name, {})).eval()


def test_the_catalogue_scores_encodes_decodes_and_samples(model):
    x = torch.rand(5, *model.shape).round()
    assert model.log_prob(x).shape == (5,)
    assert model.bound(x, samples=3).isfinite().all()
    z = model.encode(x)
    assert z.shape == (5, *model.latent_shape)
    assert torch.equal(z, model.encode(x))
    assert model.decode(z).shape == x.shape
    assert model.sample(4).shape == (4, *model.shape)
    parts = model.parts(x)
    assert parts["reconstruction"].shape == (5,)
    assert parts["kl"].shape[0] == 5
    assert model.log_prob(x[:0]).shape == (0,)


def test_saves_and_loads_the_same(model, tmp_path):
    model.save(tmp_path / "model")
    back = longflow.load(tmp_path / "model")
    x = torch.rand(4, *model.shape).round()
    values = []
    for one in (model, back):
        torch.manual_seed(1)
        values.append((one.log_prob(x), one.sample(2)))
    assert torch.equal(values[0][0], values[1][0])
    assert torch.equal(values[0][1], values[1][1])


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_rows_do_not_meet(name):
    model = longflow.build(name, shape=(1, 4, 4), levels=2, **SMALL[name], **OWN.get(name, {})).double().eval()
    x = torch.rand(3, 1, 4, 4, dtype=torch.float64).round()
    close(model.encode(x)[1:2], model.encode(x[1:2]))


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_learns(name):
    torch.manual_seed(0)
    shape = (1, 4, 4) if name == "nvae" else (4,)
    model = longflow.build(name, shape=shape, levels=2, **SMALL[name])
    x = (torch.rand(256, 2) > 0.7).float().repeat(1, math.prod(shape) // 2).reshape(256, *shape)
    adapt(model, x)
    optimiser, objective = torch.optim.Adam(model.parameters(), 1e-2), ELBO()
    losses = []
    for step in range(150):
        for _, loss in objective(model, x, None, step / 150):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.05


# The bound against closed forms


def linear(weight, bias):
    layer = nn.Linear(weight.shape[1], weight.shape[0]).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def principal(mean, variance, *, shape, size=1.0):
    """Probabilistic PCA (Tipping & Bishop 1999) with orthogonal loadings: a VAE of its posterior, and its p(x)."""
    basis = torch.linalg.qr(torch.randn(len(mean), 2, dtype=torch.float64))[0]
    loadings = size * basis * torch.tensor([2.0, 0.7])
    precision = (loadings.square().sum(0) + variance) / variance
    to_mean = loadings.T / variance / precision[:, None]
    weight = torch.cat((to_mean, torch.zeros(2, len(mean), dtype=torch.float64)))
    bias = torch.cat((-to_mean @ mean, -0.5 * precision.log()))
    model = VAE(
        StandardNormal((2,)),
        Given(nn.Sequential(nn.Flatten(), linear(weight, bias)), Normal((2,)), shape),
        Given(nn.Sequential(linear(loadings, mean), nn.Unflatten(1, shape)), EqualNormal(shape, variance**0.5), (2,)),
    ).double()
    return model, MultivariateNormal(mean, loadings @ loadings.T + variance * torch.eye(len(mean)))


def test_with_the_exact_posterior_every_weight_is_the_likelihood():
    mean = torch.randn(5, dtype=torch.float64)
    model, marginal = principal(mean, 0.3, shape=(5,))
    x = mean + torch.randn(6, 5, dtype=torch.float64)
    exact = marginal.log_prob(x)
    close(model.log_weight(x), exact, 1e-6)
    close(model.bound(x, samples=7), exact, 1e-6)
    draws = torch.stack([model.log_prob(x) for _ in range(4000)])
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - exact).abs() < SIGMAS * error).all()


def toy(prior=None, posterior=None):
    encoder = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4))
    decoder = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3))
    prior = prior or StandardNormal((2,))
    return VAE(
        prior,
        Given(encoder, posterior or Normal((2,)), (3,)),
        Given(decoder, EqualNormal((3,), 0.4, floor=0.1), (2,)),
    ).double()


def test_bounds_tighten_to_the_likelihood_by_quadrature():
    model = toy()
    x = 0.5 * torch.randn(4, 3, dtype=torch.float64)
    axis = torch.linspace(-8, 8, 401, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        prior = model.prior.log_prob(z)
        exact = torch.stack(
            [
                torch.logsumexp(model.observation.log_prob(row.expand(len(z), 3), z) + prior, 0)
                + 2 * math.log(16 / 400)
                for row in x
            ]
        )
        bounds = [torch.stack([model.bound(x, samples=k) for _ in range(60)]).mean(0) for k in (1, 10, 300)]
    for looser, tighter in itertools.pairwise([*bounds, exact]):
        assert (looser < tighter + 0.02).all()
    assert (bounds[0] < exact - 0.05).any()
    close(bounds[2], exact, 0.15)


@pytest.mark.parametrize("prior", ["standard", "diagonal", "class"])
def test_kl_of_normals_is_torchs(prior):
    context = torch.randn(6, 4, dtype=torch.float64)
    loc, log_scale = context.chunk(2, 1)
    own = {
        "standard": StandardNormal((2,)),
        "diagonal": DiagonalNormal((2,)),
        "class": ClassNormal((2,), torch.arange(2)[:, None], 3),
    }[prior].double()
    for p in own.parameters():
        nn.init.normal_(p, std=0.3)
    y = torch.tensor([0, 2, 1, 1, 0, 2]) if prior == "class" else None
    other_loc, other_scale = {
        "standard": lambda: (torch.zeros(2), torch.ones(2)),
        "diagonal": lambda: (own.loc, own.log_scale.exp()),
        "class": lambda: (own.loc[y, :, 0], own.log_scale[y, :, 0].exp()),
    }[prior]()
    expected = kl_divergence(TorchNormal(loc, log_scale.exp()), TorchNormal(other_loc, other_scale))
    close(Normal((2,)).divergence(context, own, y), expected.double())


@pytest.mark.parametrize("prior", ["diagonal", "flow", "vamp", "classes unknown"])
def test_bounds_by_closed_form_and_by_draws_agree(prior):
    model = toy()
    made = {
        "diagonal": lambda: DiagonalNormal((2,)),
        "flow": lambda: Flow(Chain(Coupling(Affine(), MLP(1, 2, hidden=4, depth=1))), StandardNormal((2,))),
        "vamp": lambda: VampPrior(model.posterior, 3),
        "classes unknown": lambda: ClassNormal((2,), torch.arange(2)[:, None], 3),
    }[prior]().double()
    for p in made.parameters():
        nn.init.normal_(p, std=0.3)
    model = VAE(made, model.posterior, model.observation).double()
    x = torch.randn(1, 3, dtype=torch.float64).expand(20000, 3)
    with torch.no_grad():
        by_form, by_draws = model.log_prob(x), model.log_weight(x)
    error = math.hypot(by_form.std().item(), by_draws.std().item()) / math.sqrt(len(x))
    assert abs(by_form.mean() - by_draws.mean()).item() < SIGMAS * error


def test_an_affine_conditional_flow_is_the_plain_posterior():
    """f-VAE's first special case, F_x(u) = σ(x) u + μ(x): the loss of a VAE, draw for draw."""
    plain = toy()
    order = nn.Sequential(plain.posterior.network, Swap())
    conditional = Flow(Inverse(Affine()), StandardNormal((2,)), (4,))
    flow = VAE(plain.prior, Given(order, conditional, (3,)), plain.observation).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    values = []
    for model in (plain, flow):
        torch.manual_seed(2)
        values.append(model.log_weight(x))
    close(*values)


class Swap(nn.Module):
    """From (μ, log σ) to the order of an affine map's parameters, (log σ, μ)."""

    def forward(self, x):
        return torch.cat(x.chunk(2, 1)[::-1], 1)


def test_a_flow_that_is_undone_is_the_flow_with_noisy_inputs():
    """f-VAE's second special case, F_x(u) = F(σ u + x) and x ~ N(F⁻¹(z), σ²): log p_F(x + σ u), draw for draw."""
    flow = Flow(
        Chain(Learned(Affine(), (4,)), Coupling(Affine(), MLP(2, 4, hidden=8, depth=1)), Reverse()),
        StandardNormal((4,)),
    ).double()
    for p in flow.parameters():
        nn.init.normal_(p, std=0.4)
    same = lambda: Given(nn.Identity(), EqualNormal((4,), 0.3), (4,))  # noqa: E731
    model = VAE(flow, same(), same()).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    torch.manual_seed(3)
    value = model.log_weight(x)
    torch.manual_seed(3)
    noise = model.posterior.inner.log_scale.exp() * torch.randn_like(x)
    close(value, flow.log_prob(x + noise))
    close(model.encode(x), flow.encode(x))
    close(model.decode(model.encode(x)), x)


def test_fvae_is_the_papers_loss():
    """L of the essay, with D log σ2, from its parts and one draw of u."""
    torch.manual_seed(0)
    model = (
        longflow.build("fvae", shape=(1, 4, 4), layers=2, depth=2, width=8, maps=4, encoder_scale=0.6).double().eval()
    )
    for p in model.parameters():
        nn.init.normal_(p, std=0.2)
    x = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    torch.manual_seed(4)
    value = -model.log_weight(x)
    torch.manual_seed(4)
    code = model.posterior.network(x)
    u = torch.randn_like(code)
    log_s1 = model.posterior.inner.log_scale
    log_s2 = model.observation.inner.log_scale
    h = log_s1.exp() * u + code
    z, log_det = model.prior.bijection(h)
    back = model.observation.network(h)
    loss = (
        (back - x).square().flatten(1).sum(1) / (2 * (2 * log_s2).exp())
        + 16 * log_s2
        + 8 * math.log(2 * math.pi)
        + z.square().flatten(1).sum(1) / 2
        - u.square().flatten(1).sum(1) / 2
        - log_det
        - 16 * log_s1
    )
    close(value, loss)


def test_preprocessing_keeps_the_units_of_the_data():
    """Scaling the data by 17 costs log 17 a number, whatever the model makes of it."""
    config = {"model": "vae", "options": {**CATALOGUE["vae"].options, **SMALL["vae"]}, "shape": [6], "levels": 17}
    scaled = assemble({**config, "preprocess": "unit"})
    x = torch.rand(5, 6) * 17
    torch.manual_seed(1)
    value = scaled.density.log_prob(x)
    plain = assemble({**config, "preprocess": "none"})
    plain.load_state_dict({k: v for k, v in scaled.state_dict().items() if "first" not in k})
    torch.manual_seed(1)
    close(plain.density.log_prob(x / 17) - 6 * math.log(17), value, 1e-3)


def test_a_logistic_mixture_is_finite_far_away():
    levels = LogisticMixture((1,), 256, 1).double()
    context = torch.tensor([[0.0, mean, scale] for mean in (-50.0, 0.0, 50.0) for scale in (-7.0, 0.0, 3.0)]).double()
    context.requires_grad_()
    for x in (0.0, 100.0, 255.0):
        value = levels.log_prob(torch.full((9, 1), x, dtype=torch.float64), context)
        (gradient,) = torch.autograd.grad(value.sum(), context)
        assert value.isfinite().all()
        assert gradient.isfinite().all()


def test_levels_likelihoods_against_torch():
    context = torch.randn(4, 12, dtype=torch.float64)
    x = torch.randint(4, (4, 3)).double()
    logits = context.reshape(4, 4, 3).movedim(1, -1)
    close(Categorical((3,), 4).log_prob(x, context), TorchCategorical(logits=logits).log_prob(x).sum(1))
    close(Categorical((3,), 4).mean(context), (logits.softmax(-1) * torch.arange(4)).sum(-1))
    for likelihood in (Categorical((3,), 4), LogisticMixture((3,), 4, 1)):
        with pytest.raises(UsageError, match="whole numbers 0 to 3"):
            likelihood.log_prob(
                x + 0.5 * (x < 1), context[:, :9] if likelihood.parameters_per_feature == 3 else context
            )
    y, logits = (x > 1).double(), context[:, :3]
    expected = torch.distributions.Bernoulli(logits=logits).log_prob(y).sum(1)
    close(Bernoulli((3,)).log_prob(y, logits), expected)


@pytest.mark.parametrize("shape", [(3,), (3, 2, 1)])
def test_the_mean_of_a_logistic_mixture_is_that_of_its_draws(shape):
    """Components apart in the first channel and strongly coupled to the next: a mean of means would not do."""
    mixture = LogisticMixture(shape, 256, 2).double()
    parameters = torch.zeros(mixture.parameters_per_feature // 2, 2, *shape, dtype=torch.float64)
    parameters[1, 0, 0], parameters[1, 1, 0] = -0.5, 0.5
    parameters[2] = -5.0
    if mixture.coupled:
        parameters[3, 0], parameters[3, 1] = 1.5, -1.5
    context = parameters.reshape(1, -1, *shape[1:])
    draws = mixture.sample(20_000, context.expand(20_000, *context.shape[1:]))
    errors = draws.std(0) / 20_000**0.5
    assert ((draws.mean(0) - mixture.mean(context)[0]).abs() < SIGMAS * errors + 0.01).all()


def test_a_normal_mixture_against_torch():
    context = torch.randn(4, 12, dtype=torch.float64)
    logits, loc, log_scale = context.reshape(4, 6, 2).chunk(3, 1)
    parts = torch.distributions.Independent(TorchNormal(loc, log_scale.exp()), 1)
    oracle = torch.distributions.MixtureSameFamily(TorchCategorical(logits=logits.mean(2)), parts)
    x = torch.randn(4, 2, dtype=torch.float64)
    close(NormalMixture((2,), 2).log_prob(x, context), oracle.log_prob(x))
    close(NormalMixture((2,), 2).mean(context), oracle.mean)


def test_the_bound_is_differentiable_in_the_weights_of_a_mixture():
    """A posterior of two normals on a line: gradient of the bound by draws, and by quadrature."""
    torch.manual_seed(0)
    decoder = linear(torch.tensor([[1.3], [-0.4]]), torch.tensor([0.2, 0.1]))
    parameters = nn.Parameter(torch.tensor([[0.4, -0.3, -0.8, 1.1, -0.5, 0.2]], dtype=torch.float64))

    class Constant(nn.Module):
        def forward(self, x):
            return parameters.expand(len(x), -1)

    posterior = Given(Constant(), NormalMixture((1,), 2), (2,))
    model = VAE(StandardNormal((1,)), posterior, Given(decoder, EqualNormal((2,), 0.5), (1,))).double()
    x = torch.tensor([[0.7, -0.2]], dtype=torch.float64)
    axis = torch.linspace(-9, 9, 6001, dtype=torch.float64)[:, None]
    log_q = NormalMixture((1,), 2).log_prob(axis, parameters.expand(6001, -1))
    inside = model.observation.log_prob(x.expand(6001, 2), axis) + model.prior.log_prob(axis) - log_q
    exact_value = (log_q.exp() * inside).sum() * (18 / 6000)
    (exact,) = torch.autograd.grad(exact_value, parameters)
    grads, values = [], []
    for _ in range(400):
        value = model.log_prob(x.expand(50, 2)).mean()
        grads.append(torch.autograd.grad(value, parameters)[0])
        values.append(value.detach())
    for drawn, wanted in ((torch.stack(values), exact_value), (torch.stack(grads), exact)):
        assert ((drawn.mean(0) - wanted).abs() < SIGMAS * drawn.std(0) / 20 + 1e-9).all()


# The objective


def test_the_weight_of_kl_rises_and_cycles():
    assert ELBO(beta=3).weight(0) == 3
    warm = ELBO(kl_warmup=0.5)
    assert [warm.weight(t) for t in (0, 0.25, 0.5, 0.9, 1)] == [0, 0.5, 1, 1, 1]
    cyclic = ELBO(kl_warmup=0.5, kl_cycles=2, beta=2)
    assert [cyclic.weight(t) for t in (0, 0.125, 0.25, 0.49, 0.5, 0.625, 1)] == [0, 1, 2, 2, 0, 1, 2]


class Stand(nn.Module):
    """A model whose bound has known parts."""

    def __init__(self):
        super().__init__()
        self.kl = nn.Parameter(torch.tensor([[0.1, 2.0], [0.3, 1.0]]))

    def parts(self, x, context):
        return {"reconstruction": torch.tensor([-3.0, -5.0]), "kl": self.kl}


def test_free_bits_cost_nothing_below_and_everything_above():
    model, x = Stand(), torch.zeros(2, 4)

    def loss(objective):
        ((_, value),) = objective(model, x, None, 1.0)
        return value

    unit = 4 * math.log(2)
    assert loss(ELBO()).item() == pytest.approx((4 + 0.2 + 1.5) / unit)
    assert loss(ELBO(beta=2)).item() == pytest.approx((4 + 3.4) / unit)
    free = loss(ELBO(free_bits=0.5))
    assert free.item() == pytest.approx((4 + 0.5 + 1.5) / unit)
    free.backward()
    close(model.kl.grad, torch.tensor([[0, 0.5], [0, 0.5]]) / unit, 1e-7)


def test_importance_weights_train_the_tighter_bound():
    model = toy()
    x = torch.randn(3, 3, dtype=torch.float64)
    torch.manual_seed(5)
    ((_, loss),) = ELBO(importance=4)(model, x, None, 0.0)
    torch.manual_seed(5)
    close(loss, -model.bound(x, samples=4).mean() / (3 * math.log(2)))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"beta": -1.0}, "beta >= 0"),
        ({"kl_warmup": 1.5}, "at most 1"),
        ({"kl_cycles": 0}, "kl_cycles >= 1"),
        ({"free_bits": math.nan}, "free_bits"),
        ({"importance": 0}, "importance >= 1"),
        ({"importance": 2, "beta": 2.0}, "plain bound"),
    ],
)
def test_bad_objectives_are_told(fields, says):
    with pytest.raises(UsageError, match=says):
        ELBO(**fields)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("vae", {"latent": 0}, "latent >= 1"),
        ("vae", {"likelihood": "bernouli"}, "did you mean 'bernoulli'"),
        ("vae", {"likelihood": "bernoulli", "levels": 17}, "expects 2 levels"),
        ("vae", {"likelihood": "logistic"}, "with levels"),
        ("vae", {"floor": -1.0}, "floor"),
        ("vae", {"scale": 1e-3}, "above 0.001"),
        ("vae", {"posterior": "flow", "latent": 1}, "at least 2"),
        ("vae", {"network": "conv", "shape": (8,)}, "pictures"),
        ("vae", {"components": 0}, "components >= 1"),
        ("cvae", {"classes": 1}, "at least 2 classes"),
        ("fvae", {"shape": (1, 5, 4)}, "divisible"),
        ("fvae", {"layers": 0}, "layers >= 1"),
    ],
)
def test_bad_autoencoders_are_told(name, options, says):
    with pytest.raises(UsageError, match=says):
        longflow.build(name, **{"shape": (1, 4, 4), **options})


def test_distributions_that_do_not_fit_are_told():
    with pytest.raises(UsageError, match="likelihood expects"):
        VAE(
            StandardNormal((3,)),
            Given(nn.Identity(), Normal((3,)), (2,)),
            Given(nn.Identity(), EqualNormal((2,)), (1,)),
        )


# The doors

QUICK = ["--steps", "60", "--threads", "1", "--width", "16"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("autoencoders")
    made = {
        "normal": ["vae"],
        "grey": ["vae", "--likelihood", "grey", "--posterior", "flow", "--free-bits", "0.1"],
        "binary": ["vae", "--levels", "2", "--likelihood", "bernoulli", "--prior", "vamp"],
        "classes": ["cvae", "--latent", "2"],
        "flow": ["fvae", "--layers", "1", "--depth", "1", "--maps", "8", "--halvings", "1"],
    }
    for name, given in made.items():
        assert main(["train", *given, *QUICK, "--out", str(folder / name)]) == 0
    assert main(["train", "vae", "--data", "two-moons", "--latent", "2", *QUICK, "--out", str(folder / "moons")]) == 0
    return folder


def test_evaluation_tells_the_bound_and_its_parts(runs, capsys):
    one = answer(capsys, "evaluate", runs / "normal")
    assert one["likelihood"] == "lower bound"
    assert one["dequantiser"] == "uniform"
    assert one["roundtrip_max_abs"] is None
    assert one["parts"]["reconstruction"] - one["parts"]["kl"] == pytest.approx(one["nats"], rel=0.02)
    many = answer(capsys, "evaluate", runs / "normal", "--importance-samples", 20)
    assert many["nats"] > one["nats"]
    binary = answer(capsys, "evaluate", runs / "binary")
    assert binary["dequantiser"] is None
    assert binary["likelihood"] == "lower bound"
    assert 0 < binary["bits_per_dim"] < 1.2


def test_what_is_no_likelihood_has_no_bits(runs, capsys):
    found = answer(capsys, "evaluate", runs / "grey")
    assert found["likelihood"] == "none"
    assert found["bits_per_dim"] is None
    capsys.readouterr()
    assert main(["evaluate", str(runs / "grey")]) == 0
    assert "no likelihood" in capsys.readouterr().out
    np.save(runs / "rows.npy", np.zeros((3, 1, 8, 8), np.uint8))
    assert main(["score", str(runs / "grey"), str(runs / "rows.npy"), "--out", str(runs / "s.csv")]) == 0
    assert (runs / "s.csv").read_text().startswith("log_prob\n")


def test_every_verb_works_on_an_autoencoder(runs, capsys):
    for name in ("normal", "grey", "binary", "classes", "flow"):
        run = str(runs / name)
        for verb in ("sample", "reconstruct", "interpolate", "manifold", "report"):
            assert main([verb, run]) == 0, (name, verb)
    for verb in (["resample"], ["latents"], ["edit", "--attribute", "3"]):
        assert main([verb[0], str(runs / "flow"), *verb[1:]]) == 0
    assert main(["report", str(runs / "moons")]) == 0
    assert main(["sample", str(runs / "classes"), "--label", "3"]) == 0


def test_inpainting_finds_the_mode_of_the_hidden_given_the_seen():
    """Of PCA with its exact posterior the bound is log p(x), whose mode in x_H is E[x_H | x_O]."""
    mean = torch.full((4,), 8.0, dtype=torch.float64)
    model, marginal = principal(mean, 1.0, shape=(1, 2, 2), size=2.0)
    original = (mean + torch.tensor([2.0, -1.0, 0.0, 0.0])).reshape(1, 1, 2, 2).repeat(200, 1, 1, 1) - 0.5
    hidden = hide("bottom", original)
    _, result = ascend(Dequantised(model, 16), original, hidden, steps=1000, rate=0.5)
    found = result.flatten(1)
    assert torch.equal(found[:, :2], original.flatten(1)[:, :2] + 0.5)
    cov = marginal.covariance_matrix
    wanted = mean[2:] + cov[2:, :2] @ torch.linalg.solve(cov[:2, :2], torch.tensor([2.0, -1.0]).double())
    error = found[:, 2:].std(0) / math.sqrt(len(found))
    assert ((found[:, 2:].mean(0) - wanted).abs() < SIGMAS * error).all()
    assert error.max() < 0.05


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_inpainting_climbs_the_bound_of_each(name):
    shape = (1, 4, 4)
    model = longflow.build(name, shape=shape, **SMALL[name], **OWN.get(name, {})).eval()
    model.preprocess(Standardise(0.0, 16.0))
    original = torch.randint(16, (3, *shape)).float()
    hidden = hide("left", original)
    start, result = ascend(Dequantised(model, 16), original, hidden, steps=60, rate=0.3)
    assert torch.equal(result.floor()[~hidden], original[~hidden])
    with torch.no_grad():
        assert model.bound(result, samples=64).mean() > model.bound(start, samples=64).mean()


def test_inpainting_tells_bounds_and_draws_by_its_seed(runs, capsys):
    found = answer(capsys, "inpaint", runs / "flow", "-n", 3, "--steps", 40)
    assert (found["likelihood"], found["importance_samples"]) == ("lower bound", 64)
    assert found["log_prob"]["filled in"] > found["log_prob"]["start"]
    assert answer(capsys, "inpaint", runs / "flow", "-n", 3, "--steps", 40) == found
    density = longflow.load(runs / "flow").density
    rows = torch.from_numpy(longflow.data.load("digits").split("test")[:3]).float()
    with torch.no_grad():
        bounds = torch.stack([density.bound(rows + 0.5, samples=64).mean() for _ in range(8)])
    assert abs(found["log_prob"]["original"] - bounds.mean()) < SIGMAS * bounds.std()
    for name in ("normal", "classes"):
        assert answer(capsys, "inpaint", runs / name, "-n", 2, "--steps", 5)["likelihood"] == "lower bound"


def test_samples_are_means_unless_noise_is_asked_for(runs):
    out = [str(runs / f"{name}.npz") for name in ("means", "noisy")]
    assert main(["sample", str(runs / "binary"), "--temperature", "1", "--out", out[0]]) == 0
    assert main(["sample", str(runs / "binary"), "--temperature", "1", "--noise", "--out", out[1]]) == 0
    means, noisy = (np.load(path)["x"] for path in out)
    assert (means % 1 > 0).mean() > 0
    assert set(np.unique(noisy)) == {0, 1}


def test_commands_refuse_what_an_autoencoder_cannot(runs, capsys):
    assert "what is invertible" in refused(capsys, "check", runs / "normal")
    assert "unknown part 'posterior'; did you mean 'prior'?" in refused(
        capsys, "check", runs / "flow", "--part", "posterior"
    )
    for name, kind in (("binary", "bernoulli"), ("grey", "grey")):
        assert f"a likelihood of levels ({kind})" in refused(capsys, "inpaint", runs / name)
    assert "pictures" in refused(capsys, "inpaint", runs / "moons")
    assert "has one" in refused(capsys, "resample", runs / "normal")
    assert "vae expects no --noise" in refused(capsys, "train", "vae", "--noise", 0, 1)
    assert "vae expects no --density-weight" in refused(capsys, "train", "vae", "--density-weight", 2)
    assert "expects 'none'" in refused(capsys, "train", "vae", "--likelihood", "logistic", "--preprocess", "unit")
    assert "2 levels" in refused(capsys, "train", "vae", "--likelihood", "bernoulli")
    assert "in [0, 1]" in refused(capsys, "train", "vae", "--likelihood", "bernoulli", "--data", "two-moons")
    assert "at most 1" in refused(capsys, "train", "vae", "--kl-warmup", 2)
    assert "latent >= 1" in refused(capsys, "train", "vae", "--latent", 0)
    assert "gradient" in refused(capsys, "train", "vae", "--posterior", "mixture", "--importance", 3)


def test_check_measures_the_prior_of_an_fvae_on_codes(runs, capsys):
    found = answer(capsys, "check", runs / "flow", "-n", 4, "--other", "digits")
    assert (found["part"], found["dims"], found["passed"]) == ("prior", 64, True)
    rows = longflow.data.load("digits").split("train")
    density = longflow.load(runs / "flow").density
    with torch.no_grad():
        x = density.first(torch.from_numpy(rows[:1000]) + torch.rand(1000, 1, 8, 8))[0]
        codes = density.posterior.network(x) + density.posterior.inner.log_scale.exp() * torch.randn(1000, 1, 8, 8)
    for measured in found["dtypes"].values():
        assert set(measured["wrong_pixels"].values()) == {None}
        assert "other data: digits" in measured["round_trip_in_sd"]
        assert measured["log_det_max_abs"] is not None
        for kind, error in measured["round_trip_max_abs"].items():
            assert error / measured["round_trip_in_sd"][kind] == pytest.approx(codes.std().item(), rel=0.05)
    assert main(["check", str(runs / "flow")]) == 0
    assert "the prior of fvae, 64 dimensions, 8 codes" in capsys.readouterr().out


def test_check_measures_posteriors_under_what_the_encoder_says(runs, capsys):
    found = answer(capsys, "check", runs / "grey", "-n", 3)
    assert (found["part"], found["dims"], found["passed"]) == ("posterior", 20, True)
    both = ["train", "vae", "--latent", 3, "--prior", "flow", "--posterior", "flow", *QUICK, "--out", runs / "both"]
    assert main([*map(str, both)]) == 0
    for part, asked in (("prior", []), ("posterior", ["--part", "posterior"])):
        found = answer(capsys, "check", runs / "both", "-n", 2, *asked)
        assert (found["part"], found["dims"], found["passed"]) == (part, 3, True)


@pytest.mark.parametrize(("name", "part"), [("flow", "prior"), ("grey", "posterior")])
def test_check_fails_a_part_that_lies(runs, monkeypatch, name, part):
    from longflow.commands.check import check

    forward = Coupling.forward

    def lying(self, x, context=None):
        z, log_det = forward(self, x, context)
        return z, log_det + 0.1

    monkeypatch.setattr(Coupling, "forward", lying)
    found = check(str(runs / name), n=2)
    assert (found["part"], found["passed"]) == (part, False)


def test_the_flows_of_an_autoencoder_see_codes_of_its_rows():
    """Prior and posterior are given one draw, of which the weight p(x | z) p(z) / q(z | x) can be made."""
    options = {"latent": 3, "width": 8, "prior": "flow", "posterior": "flow"}
    model = longflow.build("vae", shape=(4,), **options).double().eval()
    x = torch.randn(5, 4, dtype=torch.float64)
    torch.manual_seed(1)
    found = model.flows(x)
    (prior, z, _), (posterior, same, context) = (found[part] for part in ("prior", "posterior"))
    assert torch.equal(z, same)
    weight = model.observation.log_prob(x, z) + prior.log_prob(z) - posterior.log_prob(z, context)
    torch.manual_seed(1)
    close(weight, model.log_weight(x))
    plain = longflow.build("vae", shape=(4,), latent=3, width=8)
    assert plain.flows(x.float()) == {}


def test_a_resumed_run_keeps_its_objective(runs, capsys, tmp_path):
    shutil.copytree(runs / "grey", tmp_path / "run")
    told = refused(capsys, "train", "vae", "--out", tmp_path / "run", "--resume", "--free-bits", 0.2)
    assert "free_bits 0.1" in told
    assert main(["train", "vae", "--out", str(tmp_path / "run"), "--resume", "--steps", "70"]) == 0


def test_resuming_is_bit_identical_under_a_schedule(tmp_path, capsys):
    given = ["train", "vae", "--kl-warmup", "0.5", "--kl-cycles", "2", "--schedule", "constant", *QUICK]
    assert main([*given, "--out", str(tmp_path / "whole")]) == 0
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert config["objective"]["kl_cycles"] == 2
    from longflow.commands.configure import Settings
    from longflow.commands.train import Interrupted, train_run
    from longflow.training import Recipe

    settings = Settings(out=str(tmp_path / "half"), steps=60, threads=1)
    recipe = Recipe(schedule="constant")
    aim = {"kl_warmup": 0.5, "kl_cycles": 2}
    with pytest.MonkeyPatch.context() as patch:
        from longflow.commands import train as module

        patch.setattr(module, "anywhere", lambda asked: patched())
        count = iter(range(100))

        def patched():
            return next(count) == 30

        with pytest.raises(Interrupted):
            train_run("vae", settings, recipe, {"width": 16}, aim)
    assert main(["train", "vae", "--out", str(tmp_path / "half"), "--resume"]) == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "half")]
    assert weights[0] == weights[1]


def test_dequantised_autoencoders_draw_noise_and_code_anew():
    model = assemble(
        {
            "model": "vae",
            "options": {**CATALOGUE["vae"].options, **SMALL["vae"]},
            "shape": [6],
            "preprocess": "unit",
            "levels": 4,
        }
    )
    assert isinstance(model, Dequantised)
    x = torch.randint(4, (3, 6))
    assert (model.log_weight(x) != model.log_weight(x)).all()
    assert model.bound(x, samples=30).mean() > torch.stack([model.log_prob(x) for _ in range(30)]).mean()


def test_a_collapsed_posterior_is_warned_of_once(tmp_path, capsys):
    assert main(["train", "vae", "--beta", "1000", "--out", str(tmp_path / "run"), *QUICK[2:], "--steps", "200"]) == 0
    told = capsys.readouterr().err
    assert told.count("collapsed onto the prior") == 1
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["validation_kl"] < 0.1
    assert metrics[-1]["validation_used"] <= metrics[-1]["validation_groups"] == 20
    found = answer(capsys, "evaluate", tmp_path / "run")
    assert found["parts"]["used"] == metrics[-1]["validation_used"] or found["parts"]["kl"] < 0.1


def test_a_deviation_at_its_floor_is_told():
    model = toy()
    x = torch.randn(4, 3, dtype=torch.float64)
    assert at_floor(model, x.numpy()) == 0
    with torch.no_grad():
        model.observation.inner.s.fill_(-10.0)
    assert at_floor(model, x.numpy()) == 1
    assert any("a learned deviation is at its floor" in told for told in warnings_of({"kl": 1.0}, 1.0))
    assert warnings_of({"kl": 1.0}, 0.009) == []
    close(model.observation.inner.log_scale.exp(), torch.tensor(0.1, dtype=torch.float64), 1e-4)
    model.observation.inner.s.requires_grad_()
    model.log_prob(torch.randn(4, 3, dtype=torch.float64)).sum().backward()
    assert model.observation.inner.s.grad.abs() > 0


def test_deviations_of_their_own_are_counted_at_their_floor():
    model = longflow.build("vae", shape=(4,), likelihood="normal-varying", floor=0.1).double().eval()
    x = torch.randn(50, 4, dtype=torch.float64)
    assert at_floor(model, x.numpy()) == 0
    last = [layer for layer in model.observation.network.modules() if isinstance(layer, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor([0.0] * 4 + [-9.0, 0.0, -9.0, -9.0]))
    assert at_floor(model, x.numpy()) == 0.75
    assert "at their floor: 75% of them" in warnings_of({}, 0.75)[0]
    before = torch.get_rng_state()
    at_floor(model, x.numpy())
    assert torch.equal(torch.get_rng_state(), before)


def test_deviations_at_their_floor_are_warned_of_once_and_told(tmp_path, capsys):
    given = ["--likelihood", "normal-varying", "--floor", "0.3", "--lr", "0.01", "--steps", "150"]
    assert main(["train", "vae", *QUICK[2:], *given, "--out", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().err.count("deviations are at their floor") == 1
    assert 0.01 < json.loads((tmp_path / "run" / "report.json").read_text())["at_floor"] < 1
    assert "% of the deviations are at their floor" in (tmp_path / "run" / "report.html").read_text()
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert "% of the deviations are at their floor" in capsys.readouterr().out


# Seen from within


def test_traversals_span_quantiles_about_an_event(runs, capsys):
    found = answer(capsys, "traverse", runs / "classes", "--out", runs / "t.npz", "--points", 5)
    assert found["dims"] == [0, 1]
    square = np.load(runs / "t.npz")["x"]
    assert square.shape == (25, 1, 8, 8)
    model = longflow.load(runs / "classes")
    corner = torch.tensor([[-1.6448536, 1.6448536]])
    with torch.no_grad():
        close(torch.as_tensor(square[0]).float(), model.decode(corner)[0], 1e-5)
    found = answer(capsys, "traverse", runs / "normal", "--event", 3)
    assert len(found["dims"]) == 10
    assert "0 to 19" in refused(capsys, "traverse", runs / "normal", "--dims", 20)
    assert "--event" in refused(capsys, "traverse", runs / "normal", "--event", 9999)
    assert "pictures" in refused(capsys, "traverse", runs / "moons")


def test_neighbours_are_the_nearest_codes(runs, capsys):
    found = answer(capsys, "neighbours", runs / "normal", "-k", 3, "-n", 4, "--out", runs / "n.csv")
    assert 0 <= found["agree"] <= 1
    table = np.genfromtxt(runs / "n.csv", delimiter=",", names=True)
    assert len(table) == 12
    known = torch.randn(50, 2, 3)
    for metric in ("cosine", "euclidean"):
        which, distance = nearest(known[:7], known, 50, metric)
        assert (which[:, 0] == np.arange(7)).all()
        assert (np.diff(distance) >= 0).all()
        flat = known.flatten(1)
        oracle = (
            1 - nn.functional.cosine_similarity(flat[:1], flat) if metric == "cosine" else (flat[0] - flat).norm(dim=1)
        )
        close(torch.as_tensor(distance[0]), oracle.sort().values, 1e-3)
    assert "-k of 1" in refused(capsys, "neighbours", runs / "normal", "-k", 0)
    assert main(["neighbours", str(runs / "moons")]) == 0


def test_an_arc_keeps_the_norm_of_normal_codes_and_ends_at_the_events(runs):
    model = longflow.load(runs / "normal")
    rows = np.random.default_rng(0).integers(17, size=(8, 1, 8, 8)).astype(np.uint8)
    arcs, lines = (between(model, rows, 4, 5, 0, path) for path in ("arc", "line"))
    close(torch.as_tensor(arcs[:, [0, 4]]), torch.as_tensor(lines[:, [0, 4]]), 1e-6)
    assert (arcs[:, 2] != lines[:, 2]).any()


def test_binary_data_are_drawn_once_with_the_grey_value_as_probability():
    grey, black = longflow.data.load("digits"), longflow.data.load("digits-binary")
    assert black.levels == 2
    assert black.sha256 == longflow.data.load("digits-binary").sha256
    x, y = grey.split("train"), black.split("train")
    assert not y[x == 0].any()
    assert y[x == 16].all()
    half = y[x == 8].mean()
    assert abs(half - 0.5) < SIGMAS * 0.5 / math.sqrt((x == 8).sum())
    with pytest.raises(UsageError, match="continuous"):
        longflow.data.load("two-moons").binarise(0)


def test_diagnosis_adds_up(runs, capsys):
    found = answer(capsys, "diagnose", runs / "normal", "-n", 100)
    assert found["kl"] == pytest.approx(found["mutual_information"] + found["gap"])
    assert found["kl"] == pytest.approx(sum(found["kl_of_dims"]))
    assert found["mutual_information"] <= found["ceiling"] == pytest.approx(math.log(100))
    assert main(["diagnose", str(runs / "normal"), "-n", "50"]) == 0
    assert "log n" in capsys.readouterr().out


def test_diagnosis_of_a_flow_as_the_prior_or_as_the_posterior(runs, capsys):
    """f-VAE's code before its flow is normal; KL and I(X; Z) are the same on either side."""
    found = answer(capsys, "diagnose", runs / "flow", "-n", 100)
    parts = answer(capsys, "evaluate", runs / "flow", "-n", 100)["parts"]
    assert found["kl"] == pytest.approx(parts["kl"], rel=0.1)
    assert found["kl"] == pytest.approx(found["mutual_information"] + found["gap"])
    found = answer(capsys, "diagnose", runs / "grey", "-n", 100)
    assert found["mutual_information"] is found["kl_of_groups"] is None
    assert found["stderr_kl"] > 0


# What a referee found


def test_codes_of_a_mixture_are_its_centre_and_do_not_depend_on_other_rows():
    torch.manual_seed(0)
    model = longflow.build("vae", shape=(6,), posterior="mixture", components=3, latent=2, width=8)
    x = torch.randn(5, 6)
    assert torch.equal(model.encode(x), model.encode(x))
    close(model.encode(x)[3:4], model.encode(x[3:4]), 1e-6)


def test_draws_of_levels_stand_any_temperature():
    torch.manual_seed(0)
    logits = torch.linspace(-2, 2, 5, dtype=torch.float64).expand(20000, 5)
    hot = Bernoulli((5,)).sample(20000, logits, 4.0).mean(0)
    expected = torch.sigmoid(logits[0] / 4)
    assert ((hot - expected).abs() < SIGMAS * 0.5 / math.sqrt(20000)).all()
    mixture = LogisticMixture((3, 2, 2), 8, 5)
    assert mixture.sample(2, torch.randn(2, *mixture.context_shape), torch.ones(3, 2, 2)).shape == (2, 3, 2, 2)


def test_pseudo_inputs_are_of_the_levels_that_the_posterior_sees():
    model = longflow.build("vae", shape=(64,), levels=256, likelihood="grey", prior="vamp", components=30)
    seen = []
    model.posterior.network.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    model.prior.sample(2)
    assert 200 < seen[0].max() <= 255
    assert seen[0].std() > 50


def test_likelihoods_of_levels_look_at_all_values(tmp_path, capsys):
    generator = np.random.default_rng(0)
    np.save(tmp_path / "grey.npy", generator.random((300, 4)).astype(np.float32))
    np.save(tmp_path / "wide.npy", generator.normal(size=(300, 4)).astype(np.float32))
    given = ["train", "vae", "--likelihood"]
    assert "0 and 1" in refused(capsys, *given, "bernoulli", "--data", tmp_path / "grey.npy")
    flags = ["--data", tmp_path / "wide.npy", "--preprocess", "none"]
    assert "in [0, 1]" in refused(capsys, *given, "grey", *flags)


def test_importance_weights_are_refused_where_clusters_would_not_learn(capsys):
    assert "clusters" in refused(capsys, "train", "clustervae", "--importance", 3)


def test_small_numbers_of_events_are_told(runs, capsys):
    assert "-n >= 2" in refused(capsys, "diagnose", runs / "normal", "-n", 0)


def test_infomax_without_negatives_is_told_before_a_run_is_made(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32))
    given = ["train", "infomax", "--data", tmp_path / "x.npy", "--out", tmp_path / "run"]
    assert "2 rows" in refused(capsys, *given, "--batch", 1)
    assert "--alpha" in refused(capsys, *given, "--alpha", 0)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("likelihood", ["bernoulli", "grey", "categorical", "logistic"])
def test_models_of_levels_refuse_what_is_none(likelihood):
    model = longflow.build("vae", shape=(6,), levels=2, likelihood=likelihood, latent=2, width=8, components=2)
    for x in (torch.full((2, 6), 1.5), torch.full((2, 6), -0.1), torch.full((2, 6), math.nan)):
        with pytest.raises(UsageError, match=r"0 to 1; .* came"):
            model.log_prob(x)
    with pytest.raises(UsageError, match="events of shape"):
        model.decode(torch.randn(3, 5))

"""Densities on manifolds against closed forms, lengths and areas; the log-volume's estimate against the exact one."""

import copy
import itertools
import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from tolerances import EXACT, FLOAT32_ROUND_TRIP, SIGMAS, close
from torch.func import jacrev

from longflow.bijections import Bijection, Chain, FreeLinear, Inverse, Learned, Scale, Standardise, adapt
from longflow.cli import main
from longflow.distributions import ClassNormal, Flow, Hutchinson, Injective, StandardNormal, Uniform
from longflow.distributions.stretch import conjugate_gradients, exact, gram_of
from longflow.errors import TrainingDivergedError, UsageError
from longflow.families import ManifoldLikelihood
from longflow.models.rectangular import rectangular
from longflow.training import Batches, Recipe, State, train

WEIGHTS = torch.tensor([0.0, 2.0, -0.5, 1.0], dtype=torch.float64)


def small(shape=(5,), std=0.3, **options):
    """A small model in float64, none of whose layers is the identity, in evaluation mode."""
    model = rectangular(shape, **{"couplings": 3, "latent_couplings": 2, "width": 8, "depth": 1, **options}).double()
    with torch.no_grad():
        for p in model.parameters():
            p += std * torch.randn_like(p)
    return model.eval()


def oracle_log_volume(model, u):
    """½ log det JᵀJ by reverse mode, row by row."""
    rows = [jacrev(lambda row: model._embed(row[None])[0].flatten())(row) for row in u]
    return torch.stack([0.5 * torch.linalg.slogdet(j.mT @ j).logabsdet for j in rows])


def gradients(model, loss):
    return torch.autograd.grad(loss, list(model.embedding.parameters()))


def axes_in_turn(dims):
    """Probes √d·e_i: their average is the trace itself."""
    places = itertools.count()

    def draw(like):
        probe = torch.zeros_like(like)
        probe[:, next(places) % dims] = math.sqrt(dims)
        return probe

    return draw


class Chart(Bijection):
    """Of the sphere: a pair of coordinates and the radius less 1. Only the inverse is needed to place points."""

    def forward(self, x, context=None):
        radius = torch.linalg.vector_norm(x, dim=1)
        along = torch.atan2(x[:, 1], x[:, 0]) / math.pi
        return torch.stack((along, self.height(x[:, 2] / radius), radius - 1), 1), x.new_zeros(len(x))

    def inverse(self, z, context=None):
        sine = self.sine(z[:, 1])
        ring = (1 - sine.square()).sqrt()
        points = torch.stack(((math.pi * z[:, 0]).cos() * ring, (math.pi * z[:, 0]).sin() * ring, sine), 1)
        return (1 + z[:, 2:]) * points, z.new_zeros(len(z))

    @classmethod
    def examples(cls):
        yield from ()


class Lambert(Chart):
    """Longitude and sine of latitude: keeps area."""

    def height(self, sine):
        return sine

    def sine(self, height):
        return height


class Plate(Chart):
    """Longitude and latitude, both in units of π."""

    def height(self, sine):
        return sine.asin() / math.pi

    def sine(self, height):
        return (math.pi * height).sin()


def test_a_linear_map_of_a_normal_is_a_degenerate_normal():
    """scipy takes a Gaussian of singular covariance as a density on its own subspace."""
    linear, scale = FreeLinear(5).double(), Learned(Scale(), (5,)).double()
    torch.nn.init.normal_(linear.weight)
    torch.nn.init.normal_(scale.theta)
    model = Injective(Chain(scale, linear), Flow(Chain(), StandardNormal((2,)).double()), (5,))
    columns = model.decode(torch.eye(2, dtype=torch.float64)).T
    x = model.sample(9)
    oracle = multivariate_normal(torch.zeros(5).numpy(), (columns @ columns.T).detach().numpy(), allow_singular=True)
    close(model.log_prob(x), torch.from_numpy(oracle.logpdf(x.detach().numpy())))


def test_the_uniform_density_of_a_sphere():
    model = Injective(Lambert(), Flow(Chain(), Uniform((2,), -1.0, 1.0).double()), (3,))
    x = torch.nn.functional.normalize(torch.randn(20, 3, dtype=torch.float64))
    close(model.log_prob(x), torch.full((20,), -math.log(4 * math.pi), dtype=torch.float64))
    close(model.log_prob(3 * x), model.log_prob(x))
    close(model.distance(3 * x), torch.full((20,), 2.0, dtype=torch.float64))
    close(model.project(3 * x), x)


def test_longitude_and_latitude_crowd_at_the_poles():
    model = Injective(Plate(), Flow(Chain(), Uniform((2,), -0.5, 0.5).double()), (3,))
    x = torch.nn.functional.normalize(torch.rand(20, 3, dtype=torch.float64))
    cosine = (1 - x[:, 2].square()).sqrt()
    close(model.log_prob(x), -(math.pi**2 * cosine).log())


def test_lengths_on_a_curve_sum_to_one():
    """∫ p ds, the lengths being those of chords: no Jacobian."""
    model = small((3,), latent=1, components=3)
    with torch.no_grad():
        u = torch.linspace(-40, 40, 80001, dtype=torch.float64)[:, None]
        ends = model._embed(u)
        lengths = torch.linalg.vector_norm(ends[1:] - ends[:-1], dim=1)
        middle = model._embed((u[1:] + u[:-1]) / 2)
        mass = (model.log_prob(middle).exp() * lengths).sum().item()
    assert mass == pytest.approx(1, abs=1e-4)


def test_areas_on_a_surface_sum_to_one():
    """∫ p dA, the areas being those of triangles."""
    model = small((4,), std=0.2, latent=2)
    with torch.no_grad():
        axis = torch.linspace(-12, 12, 601, dtype=torch.float64)
        z = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), 2)
        corners = model.decode(z.reshape(-1, 2)).reshape(601, 601, 4)
        a, b, c, d = corners[:-1, :-1], corners[1:, :-1], corners[:-1, 1:], corners[1:, 1:]
        areas = triangle(b - a, c - a) + triangle(b - d, c - d)
        middle = (z[:-1, :-1] + z[1:, 1:]) / 2
        mass = (model.log_prob(model.decode(middle.reshape(-1, 2))).exp() * areas.flatten()).sum().item()
    assert mass == pytest.approx(1, abs=1e-3)


def triangle(p, q):
    p2, q2, pq = p.square().sum(-1), q.square().sum(-1), (p * q).sum(-1)
    return 0.5 * (p2 * q2 - pq.square()).clamp_min(0).sqrt()


@pytest.mark.parametrize(("shape", "latent"), [((3,), 1), ((5,), 2), ((6,), 5), ((1, 2, 3), 3)])
def test_round_trips_and_projections(shape, latent):
    model = small(shape, latent=latent)
    z = torch.randn(7, latent, dtype=torch.float64)
    x = model.decode(z)
    assert x.shape == (7, *shape)
    close(model.encode(x), z)
    close(model.project(x), x)
    close(model.distance(x), torch.zeros(7, dtype=torch.float64), 1e-8)
    off = x + torch.randn_like(x)
    close(model.log_prob(off), model.log_prob(model.project(off)), 1e-8)
    close(model.distance(off).square(), model.scored(off)[1])
    assert bool((model.distance(off) > 1e-3).all())


def test_sample_and_log_prob_agree():
    model = small(latent=3)
    x, log_prob = model.sample_and_log_prob(6)
    close(model.log_prob(x), log_prob, 1e-8)
    assert model.sample(0).shape == (0, 5)
    assert model.log_prob(torch.zeros(0, 5, dtype=torch.float64)).shape == (0,)


@pytest.mark.parametrize(("shape", "latent"), [((3,), 1), ((5,), 3), ((2, 2, 2), 4)])
def test_exact_log_volume_and_its_gradient_are_those_of_autograd(shape, latent):
    model = small(shape, latent=latent)
    u = torch.randn(4, latent, dtype=torch.float64, requires_grad=True)
    ours, theirs = model.log_volume(u), oracle_log_volume(model, u)
    close(ours, theirs)
    for found, oracle in zip(gradients(model, WEIGHTS @ ours), gradients(model, WEIGHTS @ theirs), strict=True):
        close(found, oracle)


def test_gradient_of_log_prob_is_that_of_finite_differences():
    model = small((4,), latent=2)
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model.log_prob, (x,))
    names, values = zip(*model.named_parameters(), strict=True)
    direction = [torch.randn_like(v) for v in values]
    weights = WEIGHTS[:3]
    slope = torch.autograd.grad(weights @ model.log_prob(x.detach()), values)
    wanted = sum((g * d).sum() for g, d in zip(slope, direction, strict=True))
    moved = []
    for h in (1e-6, -1e-6):
        shifted = {name: v + h * d for name, v, d in zip(names, values, direction, strict=True)}
        moved.append(weights @ torch.func.functional_call(model, shifted, (x.detach(),)))
    close((moved[0] - moved[1]) / 2e-6, wanted, 1e-6 * (1 + wanted.abs().item()))


@pytest.mark.parametrize("latent", [1, 2, 4])
def test_with_all_probes_the_estimate_is_exact(latent):
    """Value, gradient in u and in the weights, for weighted rows."""
    model = small(latent=latent)
    u = torch.randn(4, latent, dtype=torch.float64, requires_grad=True)
    all_probes = Hutchinson(latent, axes_in_turn(latent), tolerance=1e-12)
    (x, ours), (same, theirs) = all_probes(model._embed, u), exact(model._embed, u)
    close(x, same)
    close(ours, theirs, 1e-8)
    wanted = [u, *model.embedding.parameters()]
    found, oracle = (torch.autograd.grad(WEIGHTS @ log_volume, wanted) for log_volume in (ours, theirs))
    assert sum(g.abs().sum() for g in oracle) > 1
    for a, b in zip(found, oracle, strict=True):
        close(a, b, 1e-8)


@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
def test_the_estimate_is_unbiased_in_value_and_gradient(probe):
    """4,096 draws, as 64 means of 64 copies of the rows; every weight of the embedding within standard errors."""
    model = small((4,), latent=3, couplings=2, width=4)
    u = torch.randn(4, 3, dtype=torch.float64)
    stretch = Hutchinson(2, probe, tolerance=1e-10)
    weights = WEIGHTS.repeat(64) / 64
    many = u.repeat(64, 1)
    values, slopes = [], []
    for _ in range(64):
        log_volume = stretch(model._embed, many)[1]
        values.append(log_volume.detach().reshape(64, 4).mean(0))
        slopes.append(torch.cat([g.flatten() for g in gradients(model, weights @ log_volume)]))
    truth = exact(model._embed, u)[1]
    slope = torch.cat([g.flatten() for g in gradients(model, WEIGHTS @ truth)])
    for draws, wanted in ((values, truth.detach()), (slopes, slope)):
        mean, error = torch.stack(draws).mean(0), torch.stack(draws).std(0) / 8
        assert bool((error > 0).any())
        assert bool(((mean - wanted).abs() <= SIGMAS * error + 1e-9).all())


def test_rows_do_not_meet_in_the_estimates_gradient():
    model = small(latent=3)
    u = torch.randn(4, 3, dtype=torch.float64)
    found = []
    for weights in ([1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]):
        torch.manual_seed(1)
        log_volume = Hutchinson()(model._embed, u)[1]
        found.append(gradients(model, torch.tensor(weights, dtype=torch.float64) @ log_volume))
    for a, b, both in zip(*found, strict=True):
        close(a + b, both)


def test_the_estimate_draws_from_torchs_generator_and_is_differentiated_once():
    model = small(latent=3)
    u = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(3)
    first = Hutchinson()(model._embed, u)[1]
    assert not torch.equal(Hutchinson()(model._embed, u)[1], first)
    torch.manual_seed(3)
    close(Hutchinson()(model._embed, u)[1], first, 0)
    with pytest.raises(RuntimeError, match="once"):
        torch.autograd.grad(first.sum(), u, create_graph=True)


def test_training_estimates_and_evaluation_is_exact():
    model = small(latent=3, log_volume="hutchinson", probes=2)
    same = small(latent=3)
    same.load_state_dict(model.state_dict())
    x = torch.randn(6, 5, dtype=torch.float64)
    close(model.log_prob(x), same.log_prob(x), 0)
    model.train()
    assert (model.log_prob(x) - same.log_prob(x)).abs().min() > 1e-6
    with torch.no_grad():
        draws = model.log_prob(x.repeat(2000, 1)).reshape(2000, 6)
    error = draws.std(0) / math.sqrt(2000)
    assert bool(((draws.mean(0) - same.log_prob(x)).abs() < SIGMAS * error + 1e-3).all())


def spd(rows, dims):
    a = torch.randn(rows, dims, dims, dtype=torch.float64)
    return a @ a.mT + 0.1 * torch.eye(dims, dtype=torch.float64)


def test_conjugate_gradients_solve_and_give_the_quadratic_form_of_the_logarithm():
    a, b = spd(6, 5), torch.randn(6, 5, dtype=torch.float64)
    a[2] = 2 * torch.eye(5)  # this row ends after one step
    b[4] = 0  # and this one before the first
    solved, logs = conjugate_gradients(lambda v: (a @ v[..., None])[..., 0], b, 1e-13, 50)
    close(solved, torch.linalg.solve(a, b), 1e-8)
    values, vectors = torch.linalg.eigh(a)
    parts = (vectors.mT @ b[..., None])[..., 0]
    close(logs, (parts.square() * values.log()).sum(1), 1e-8)


def test_conjugate_gradients_end_at_their_tolerance_and_say_where_they_do_not():
    a, b = spd(8, 12), torch.randn(8, 12, dtype=torch.float64)

    def product(v):
        return (a @ v[..., None])[..., 0]

    solved, _ = conjugate_gradients(product, b, 0.1, 100)
    left = torch.linalg.vector_norm(b - product(solved), dim=1) / torch.linalg.vector_norm(b, dim=1)
    assert left.max() <= 0.1 + 1e-9
    assert left.max() > 1e-6
    with pytest.warns(UserWarning, match="8 of 8 rows"):
        conjugate_gradients(product, b, 1e-10, 3)


def test_products_with_the_gram_matrix():
    model = small(latent=3)
    u, v = torch.randn(2, 4, 3, dtype=torch.float64)
    j = torch.stack([jacrev(lambda row: model._embed(row[None])[0])(row) for row in u])
    close(gram_of(model._embed, u)(v), (j.mT @ (j @ v[..., None]))[..., 0])


def test_the_chart_sees_coordinates():
    model, x = small((4,), latent=2).eval(), torch.randn(5, 4, dtype=torch.float64)
    ((name, (chart, u, context)),) = model.flows(x).items()
    assert (name, context) == ("chart", None)
    close(chart.log_prob(u) - model.log_volume(u), model.log_prob(x))


def test_units_of_the_data():
    """Where lengths are in millimetres, a density on a surface is 10⁻⁶ of that in metres."""
    model = small(latent=2)
    x = model.sample(5).detach()
    metres = model.log_prob(x)
    finer = copy.deepcopy(model)
    finer.preprocess(Standardise(0.0, 1000.0).double())
    close(finer.log_prob(1000 * x), metres - 2 * math.log(1000), 1e-8)
    close(finer.distance(1000 * x + 1), 1000 * model.distance(x + 1e-3), 1e-6)


def test_classes_condition_the_density_on_one_manifold():
    base = ClassNormal((2,), torch.arange(2)[:, None], 3).double()
    torch.nn.init.normal_(base.raw_loc)
    model = Injective(small((4,), latent=2).embedding, Flow(Chain(), base), (4,))
    y = torch.tensor([0, 1, 2])
    x, log_prob = model.sample_and_log_prob(3, y)
    close(model.log_prob(x, y), log_prob, 1e-8)
    close(model.distance(x), torch.zeros(3, dtype=torch.float64), 1e-8)
    mixture = torch.stack([model.log_prob(x, torch.full((3,), k)) for k in range(3)]).logsumexp(0) - math.log(3)
    close(model.log_prob(x), mixture, 1e-8)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_scores_without_gradients_in_float32(mode):
    model = small(latent=3)
    x = model.sample(9).detach() + 0.1
    exact_scores = model.log_prob(x)
    model.float()
    with mode():
        close(model.log_prob(x.float()).double(), exact_scores, 1e-4)
        z = model.encode(x.float())
        close(model.encode(model.decode(z)), z, 10 * FLOAT32_ROUND_TRIP)


def arc(n):
    angle = 0.8 * torch.randn(n)
    return torch.stack((angle.cos(), angle.sin(), 0.5 * angle), 1)


@pytest.mark.parametrize("log_volume", ["exact", "hutchinson"])
def test_the_loop_trains_it(log_volume):
    x = arc(1024)
    model = rectangular((3,), latent=1, couplings=3, width=16, depth=1, log_volume=log_volume)
    adapt(model, x)
    objective, recipe = ManifoldLikelihood(50.0), Recipe(batch=128, lr=8e-3, warmup=10, ema=0.0)
    batches = Batches(x, None, recipe.batch, 0)
    state = State(model, objective, recipe)
    losses = [p.loss for p in train(state, objective, batches, recipe, 100, batches.steps_per_epoch)]
    assert sum(losses[-10:]) / 10 < losses[0] - 2
    model.eval()
    assert model.distance(arc(200)).mean() < 0.1
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still


def test_divergence_names_the_layer():
    model = rectangular((3,), latent=1, couplings=2, width=4)
    with torch.no_grad():
        next(model.embedding.parameters()).fill_(math.nan)
    objective, recipe = ManifoldLikelihood(), Recipe(batch=16)
    with pytest.raises(TrainingDivergedError, match=r"embedding\.parts\.0"):
        next(train(State(model, objective, recipe), objective, Batches(arc(64), None, 16, 0), recipe, 1, 4))


def test_the_objective_is_minus_log_likelihood_and_weighted_reconstruction():
    model = small(latent=2)
    x = torch.randn(6, 5, dtype=torch.float64)
    ((part, loss),) = ManifoldLikelihood(7.0)(model, x, None)
    nats = -model.log_prob(x) + 7 * (x - model.project(x)).square().sum(1)
    close(loss, nats.mean() / (2 * math.log(2)))
    assert part == ""


def test_the_objective_has_no_minimum():
    """Data of a plane, a line across it: all are projected on one point, and score without bound at a finite cost."""
    flat = torch.cat((torch.randn(50, 2), torch.zeros(50, 1)), 1).double()
    losses = []
    for log_scale in (0.0, 10.0, 20.0):
        scale = Learned(Scale(), (3,)).double()
        across = Learned(Scale(), (1,)).double()
        torch.nn.init.constant_(across.theta, log_scale)
        upright = FreeLinear(3).double()
        with torch.no_grad():
            upright.weight.copy_(torch.eye(3).flip(0))
        model = Injective(Chain(scale, upright), Flow(across, StandardNormal((1,)).double()), (3,))
        ((_, loss),) = ManifoldLikelihood(1000.0)(model, flat, None)
        losses.append(loss.item())
    assert losses[0] - losses[1] == pytest.approx(10 / math.log(2), abs=EXACT)
    assert losses[1] - losses[2] == pytest.approx(10 / math.log(2), abs=EXACT)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: rectangular((1,), latent=1), "at least 2 numbers; 1 came"),
        (lambda: rectangular((3,), latent=0), "latent >= 1; 0 came"),
        (lambda: rectangular((3,), latent=3), "latent < 3"),
        (lambda: rectangular((3,), latent=7), "latent < 3, the numbers in an event; 7 came"),
        (lambda: rectangular((3,), latent=1.5), "whole number"),
        (lambda: rectangular((3,), couplings=0), "couplings >= 1; 0 came"),
        (lambda: rectangular((3,), components=0), "components >= 1; 0 came"),
        (lambda: rectangular((3,), log_volume="hutchinsen"), "did you mean 'hutchinson'"),
        (lambda: rectangular((3,), log_volume="hutchinson", tolerance=1.0), r"tolerance in \(0, 1\); 1.0 came"),
        (lambda: Hutchinson(probes=0), "probes >= 1; 0 came"),
        (lambda: Hutchinson(iterations=0), "iterations >= 1; 0 came"),
        (lambda: Hutchinson(probe="gauss"), "did you mean 'gaussian'"),
        (lambda: ManifoldLikelihood(0.0), "expected to be > 0; 0.0 came"),
        (lambda: ManifoldLikelihood(math.inf), "expected to be > 0; inf came"),
        (lambda: small(latent=2).log_prob(torch.zeros(2, 4)), r"shape \(B, 5\)"),
        (lambda: small(latent=2).decode(torch.zeros(2, 5).double()), r"shape \(B, 2\)"),
        (lambda: small(latent=2).sample(-1), ">= 0; -1 came"),
        (lambda: Injective(Chain(), Flow(Chain(), StandardNormal((3,))), (3,)), "less than 3 numbers"),
        (lambda: Injective(Chain(), Flow(Chain(), StandardNormal((1, 2, 2))), (9,)), "vectors"),
        (lambda: Injective(Chain(memory="reversible"), Flow(Chain(), StandardNormal((1,))), (3,)), "memory reversible"),
    ],
)
def test_bad_input_is_told_in_one_line(call, says):
    with pytest.raises(UsageError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_an_inverse_by_iteration_is_refused():
    from longflow.models.iresnet import iresnet

    with pytest.raises(UsageError, match="by iteration"):
        Injective(iresnet((3,), blocks=1, width=4).bijection, Flow(Chain(), StandardNormal((1,))), (3,))


def test_an_inverted_embedding_works_too():
    model = small((4,), latent=2)
    turned = Injective(Inverse(model.embedding), model.chart, (4,))
    u = torch.randn(3, 2, dtype=torch.float64)
    close(turned.log_volume(u), oracle_log_volume(turned, u))


def test_a_manifold_is_trained_and_told_by_the_commands(tmp_path, capsys):
    angle = torch.linspace(0, 5, 600)
    np.save(tmp_path / "curve.npy", torch.stack((angle.cos(), angle.sin(), angle), 1).numpy())
    given = ["train", "rectangular", "--data", str(tmp_path / "curve.npy"), "--latent", "1", "--couplings", "2"]
    run = str(tmp_path / "run")
    assert main([*given, "--steps", "60", "--batch", "64", "--threads", "1", "--out", run, "--weight", "20"]) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["objective"] == {"weight": 20.0}
    capsys.readouterr()
    assert main(["evaluate", run, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bits_per_dim"] is None
    assert found["parts"]["distance"] > 0
    assert main(["evaluate", run]) == 0
    assert "on the learned manifold" in capsys.readouterr().out
    assert main(["sample", run, "--out", str(tmp_path / "s.csv")]) == 0
    capsys.readouterr()
    assert main(["check", run]) == 0
    assert "the chart of rectangular, 1 dimension, 8 codes" in capsys.readouterr().out
    for arguments, told in (
        (["check", run, "--part", "prior"], "unknown part 'prior' (known: chart)"),
        (["evaluate", run, "--importance-samples", "2"], "draws nothing"),
        (["train", "rectangular", "--latent", "2"], "continuous data"),
        ([*given, "--latent", "3"], "latent < 3"),
        ([*given, "--weight", "0"], "> 0"),
    ):
        assert main(arguments) == 2
        assert told in capsys.readouterr().err

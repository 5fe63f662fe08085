"""Models of codes without a density: bounds against closed forms, objectives, the catalogue's suite, and the doors."""

import io
import json
import math
import shutil

import numpy as np
import pytest
import torch
from doors import answer, refused
from PIL import Image
from tolerances import SIGMAS, close
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

import longflow
from longflow import figures
from longflow.adaptive import adapt, has_statistics
from longflow.cli import main
from longflow.commands.neighbours import nearest
from longflow.commands.represent import terms_of
from longflow.distributions import Dequantised
from longflow.errors import UsageError
from longflow.families import VIB, Bottleneck, InfoMax, InformationBottleneck, Multiplier, MutualInformation
from longflow.families.infomax import divergence_bound, jensen_shannon, others
from longflow.models import CATALOGUE, assemble
from longflow.quality import calibration_error

SMALL = {
    "vib": {"latent": 3, "width": 8, "classes": 3},
    "infomax": {"latent": 3, "width": 4, "units": 8},
}
REPRESENTATIONS = {name: model for name, model in CATALOGUE.items() if model.represents}
SHAPES = [(2,), (7,), (1, 8, 8), (3, 4, 6), (1, 28, 28)]
CASES = [
    (name, preset, shape)
    for name, model in REPRESENTATIONS.items()
    for preset in (None, *model.presets)
    for shape in SHAPES
]


def test_every_representation_is_tried():
    assert set(SMALL) == set(REPRESENTATIONS)


def small(name, shape, **options):
    torch.manual_seed(0)
    model = longflow.build(name, shape=shape, **{**SMALL[name], **options}).double()
    rows = torch.rand(20, *shape, dtype=torch.float64)
    adapt(model, rows)
    return model.eval()


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}-{'x'.join(map(str, case[2]))}")
def model(request):
    name, preset, shape = request.param
    return small(name, shape, preset=preset)


def context_of(model, n):
    return torch.arange(n) % model.predicts if model.predicts else None


# The catalogue's suite


def test_the_catalogue_encodes_and_has_terms(model):
    x = torch.rand(5, *model.shape, dtype=torch.float64)
    z = model.encode(x)
    assert z.shape == (5, *model.latent_shape)
    assert torch.equal(z, model(x))
    assert all(value.shape == (5,) for value in model.terms(x, context_of(model, 5)).values())
    assert model.encode(x[:0]).shape == (0, *model.latent_shape)


def test_rows_do_not_meet_in_evaluation(model):
    x = torch.rand(4, *model.shape, dtype=torch.float64)
    close(model.encode(x)[2:3], model.encode(x[2:3]))
    close(model.encode(x[[3, 1]]), model.encode(x)[[3, 1]])


def test_saves_and_loads_the_same(model, tmp_path):
    model.float().save(tmp_path / "model")
    back = longflow.load(tmp_path / "model")
    x = torch.rand(4, *model.shape)
    assert torch.equal(model.encode(x), back.encode(x))
    values = []
    for one in (model, back):
        torch.manual_seed(1)
        values.append(one.terms(x, context_of(model, 4)))
    assert all(torch.equal(values[0][name], values[1][name]) for name in values[0])


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_a_gradient_reaches_every_parameter(name):
    model = small(name, (1, 8, 8)).train()
    objective = CATALOGUE[name].objective()
    (_, loss), *rest = objective(model, torch.rand(6, 1, 8, 8, dtype=torch.float64), context_of(model, 6))
    loss.backward()
    assert not rest
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_data_of_levels_are_scaled_and_not_dequantised():
    config = {"model": "vib", "options": CATALOGUE["vib"].resolve(None, SMALL["vib"]), "shape": [6], "levels": 5}
    torch.manual_seed(0)
    model = assemble({**config, "preprocess": "unit"})
    assert not isinstance(model, Dequantised)
    x = torch.randint(5, (3, 6)).float()
    assert torch.equal(model.encode(x), model.encode(x))
    close(model.encode(x), model.bottleneck.code.mean(model.encoder(x / 5)), 1e-6)


# The bottleneck


def test_the_rate_is_torchs_kl():
    torch.manual_seed(0)
    parameters = torch.randn(7, 8, dtype=torch.float64)
    mu, log_scale = parameters.chunk(2, 1)
    posterior = Independent(Normal(mu, log_scale.exp()), 1)
    prior = Independent(Normal(torch.zeros_like(mu), torch.ones_like(mu)), 1)
    close(Bottleneck(4).rate(parameters), kl_divergence(posterior, prior))


def test_the_layer_is_noisy_in_training_only():
    torch.manual_seed(0)
    layer, parameters = Bottleneck(2), torch.tensor([[0.5, -1.0, math.log(2.0), math.log(0.1)]], dtype=torch.float64)
    assert not list(layer.parameters())
    close(layer.eval()(parameters), parameters[:, :2])
    z = layer.train()(parameters.expand(20_000, -1))
    deviation = torch.tensor([2.0, 0.1], dtype=torch.float64)
    assert ((z.mean(0) - parameters[0, :2]).abs() < SIGMAS * deviation / math.sqrt(20_000)).all()
    assert ((z.std(0) / deviation - 1).abs() < SIGMAS / math.sqrt(2 * 20_000)).all()


def test_the_rate_bounds_the_information_of_a_gaussian_channel():
    """x ~ N(0, s²), z = x + σ ε: I = ½ log(1 + s²/σ²), and E KL - I = KL(N(0, s² + σ²) ‖ N(0, 1))."""
    torch.manual_seed(0)
    s, sigma, n = 1.5, 0.5, 200_000
    x = s * torch.randn(n, 1, dtype=torch.float64)
    rates = Bottleneck(1).rate(torch.cat((x, torch.full_like(x, math.log(sigma))), 1))
    information = 0.5 * math.log(1 + (s / sigma) ** 2)
    marginal = s**2 + sigma**2
    gap = 0.5 * (marginal - 1 - math.log(marginal))
    assert abs(float(rates.mean()) - information - gap) < SIGMAS * float(rates.std()) / math.sqrt(n)


class Fixed(nn.Module):
    """A model whose terms are what they are told to be."""

    def __init__(self, **terms):
        super().__init__()
        self.values = nn.ParameterDict(
            {name: torch.tensor(value, dtype=torch.float64) for name, value in terms.items()}
        )
        self.multiplier = Multiplier().double()

    def terms(self, x, context=None):
        return {name: value.expand(len(x)) for name, value in self.values.items()}


def loss_of(objective, model):
    (_, loss), *rest = objective(model, torch.zeros(4, 2), None)
    assert not rest
    model.zero_grad()
    loss.backward()
    return loss.item() * math.log(2), {name: p.grad.item() * math.log(2) for name, p in model.values.items()}


@pytest.mark.parametrize(("rate", "price", "slope"), [(3.0, 0.0, 0.0), (8.0, 0.3, 0.1)])
def test_only_rate_above_the_threshold_costs(rate, price, slope):
    model = Fixed(cross_entropy=1.5, rate=rate)
    loss, slopes = loss_of(InformationBottleneck(beta=0.1, threshold=5.0), model)
    assert loss == pytest.approx(1.5 + price)
    assert slopes == pytest.approx({"cross_entropy": 1.0, "rate": slope})


def test_a_fixed_weight_has_no_state():
    model = Fixed(cross_entropy=1.5, rate=8.0)
    loss, _ = loss_of(InformationBottleneck(beta=0.1), model)
    assert loss == pytest.approx(1.5 + 0.8)
    assert model.multiplier.added == 0


def test_dual_ascent_moves_the_weight_once_a_step_and_never_below_0():
    model = Fixed(cross_entropy=1.5, rate=12.0)
    objective = InformationBottleneck(beta=0.2, target=10.0, ascent=0.03)
    model.terms(torch.zeros(4, 2))
    assert model.multiplier.added == 0
    _, slopes = loss_of(objective, model)
    assert slopes["rate"] == pytest.approx(0.2)
    close(model.multiplier.added, torch.tensor(0.06, dtype=torch.float64))
    _, slopes = loss_of(objective, model)
    assert slopes["rate"] == pytest.approx(0.26)
    close(model.multiplier.added, torch.tensor(0.12, dtype=torch.float64))
    with torch.no_grad():
        model.values["rate"].fill_(0.0)
    loss_of(objective, model)
    close(model.multiplier.added, torch.tensor(-0.18, dtype=torch.float64))
    loss_of(objective, model)
    close(model.multiplier.added, torch.tensor(-0.2, dtype=torch.float64))
    assert loss_of(objective, model)[1]["rate"] == 0.0
    with torch.no_grad():
        model.values["rate"].fill_(12.0)
    loss_of(objective, model)
    close(model.multiplier.added, torch.tensor(-0.14, dtype=torch.float64))


def test_dual_ascent_finds_the_weight_of_a_known_problem():
    """min ½ (r - 4)² subject to r <= 1: at the optimum r = 1 and the weight is 3."""

    class Quadratic(Fixed):
        def terms(self, x, context=None):
            rate = self.values["rate"]
            return {"cross_entropy": (0.5 * (rate - 4) ** 2).expand(len(x)), "rate": rate.expand(len(x))}

    model = Quadratic(rate=0.0)
    objective = InformationBottleneck(beta=0.0, target=1.0, ascent=0.05)
    optimiser = torch.optim.SGD(model.values.parameters(), 0.1)
    for _ in range(2000):
        for _, loss in objective(model, torch.zeros(2, 1), None):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    assert model.values["rate"].item() == pytest.approx(1.0, abs=1e-6)
    assert model.multiplier.added.item() == pytest.approx(3.0, abs=1e-6)


def test_weights_are_judged_by_what_is_minimised():
    terms = {"cross_entropy": 0.5, "rate": 6.0}
    assert InformationBottleneck(beta=0.1).judged(terms) * math.log(2) == pytest.approx(1.1)
    assert InformationBottleneck(beta=0.1, threshold=8.0).judged(terms) * math.log(2) == pytest.approx(0.5)
    assert InformationBottleneck(target=4.0).judged(terms) * math.log(2) == pytest.approx(2.5)
    assert InformationBottleneck(target=9.0).judged(terms) * math.log(2) == pytest.approx(0.5)
    model = Fixed(**{"global": -0.4, "local": -0.7, "kl": 5.0})
    objective = MutualInformation(alpha=0.5, beta_local=1.5, gamma=0.01)
    loss, slopes = loss_of(objective, model)
    assert loss == pytest.approx(0.2 + 1.05 + 0.05)
    assert slopes == pytest.approx({"global": -0.5, "local": -1.5, "kl": 0.01})
    found = objective.judged({"global": -0.4, "local": -0.7, "kl": 5.0})
    assert found * math.log(2) == pytest.approx(loss)


def test_predictions_average_over_draws():
    model = small("vib", (4,))
    x = torch.randn(3, 4, dtype=torch.float64)
    close(model.probabilities(x), model.logits(x).softmax(1))
    torch.manual_seed(2)
    single = torch.stack([model.probabilities(x, 1) for _ in range(4)])
    torch.manual_seed(2)
    close(model.probabilities(x, 4), single.mean(0))
    assert (single[0] != single[1]).any()
    close(model.probabilities(x, 3).sum(1), torch.ones(3, dtype=torch.float64))


def test_the_terms_of_a_bottleneck_are_of_a_noisy_code():
    model = small("vib", (4,))
    x, y = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    torch.manual_seed(2)
    terms = model.terms(x, y)
    torch.manual_seed(2)
    likely = model.probabilities(x, 1)[torch.arange(5), y]
    close(terms["cross_entropy"], -likely.log())
    close(terms["rate"], model.bottleneck.rate(model.encoder(x)))


# InfoMax


@pytest.mark.parametrize("n", [2, 3, 4, 17])
def test_negatives_have_no_fixed_points_and_leave_nobody_out(n):
    places = others(torch.arange(n))
    assert (places != torch.arange(n)).all()
    assert torch.equal(places.sort().values, torch.arange(n))


def test_one_row_has_no_negatives():
    with pytest.raises(UsageError, match="at least 2 rows"):
        others(torch.zeros(1, 3))
    with pytest.raises(UsageError, match="at least 2 rows"):
        small("infomax", (4,)).terms(torch.zeros(1, 4, dtype=torch.float64))


class Meeting(nn.Module):
    """A score that records the pairs that it sees: the feature of x beside the code."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, pairs):
        self.seen.append(pairs)
        return pairs[..., :1]


def test_discriminators_see_data_beside_codes():
    """The first call pairs each x with its own code, the second with that of another row; never a code with a code."""
    whole, place = Meeting(), Meeting()
    head = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).double()
    model = InfoMax((1, 2, 2), 1, trunk=nn.Identity(), head=head, whole=whole, place=place)
    with torch.no_grad():
        head[1].weight.copy_(torch.tensor([[100.0, 0, 0, 0], [0, 0, 0, 0]]))
        head[1].bias = nn.Parameter(torch.tensor([0.0, -20.0], dtype=torch.float64))
    x = torch.randn(5, 1, 2, 2, dtype=torch.float64)
    model.terms(x)
    codes = 100 * x[:, 0, 0, :1]
    for pairs, rows in zip(whole.seen, (x, x.roll(1, 0)), strict=True):
        close(pairs[:, :4], rows.flatten(1))
        close(pairs[:, 4:], codes, 1e-7)
    for pairs, rows in zip(place.seen, (x, x.roll(1, 0)), strict=True):
        close(pairs[..., 0], rows.flatten(1))
        close(pairs[..., 1], codes.expand(-1, 4), 1e-7)


@pytest.mark.parametrize("term", ["global", "local"])
@pytest.mark.parametrize("features", ["fixed", "learned"])
def test_discriminators_teach_features_only_where_asked(features, term):
    """A code that ignores its features teaches them nothing; discriminators do, where features are learned."""
    model = small("infomax", (1, 8, 8), features=features)
    with torch.no_grad():
        model.head.last.weight.zero_()
    assert (slope_of_features(model, term) > 0) == (features == "learned")
    assert small("infomax", (1, 8, 8)).features == "fixed"


@pytest.mark.parametrize("term", ["global", "local", "kl"])
def test_codes_teach_fixed_features(term):
    assert slope_of_features(small("infomax", (1, 8, 8)), term) > 0


def slope_of_features(model, term):
    """Return the largest derivative of a term by a weight of the trunk."""
    loss = model.terms(torch.rand(6, 1, 8, 8, dtype=torch.float64))[term].mean()
    slopes = torch.autograd.grad(loss, list(model.trunk.parameters()), allow_unused=True, materialize_grads=True)
    return max(slope.abs().max().item() for slope in slopes)


def js_of_gaussians(rho):
    """Return JS(N(0, [[1, ρ], [ρ, 1]]) ‖ N(0, I)) by quadrature, in nats."""
    grid = torch.linspace(-8, 8, 801, dtype=torch.float64)
    x, z = torch.meshgrid(grid, grid, indexing="ij")
    joint = torch.exp(-(x**2 - 2 * rho * x * z + z**2) / (2 * (1 - rho**2))) / (2 * math.pi * math.sqrt(1 - rho**2))
    product = torch.exp(-(x**2 + z**2) / 2) / (2 * math.pi)
    middle = (joint + product) / 2
    cell = float(grid[1] - grid[0]) ** 2
    return 0.5 * cell * float((joint * (joint / middle).log() + product * (product / middle).log()).nan_to_num().sum())


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_the_best_scores_reach_the_divergence_and_others_do_not(rho):
    """For T* = log p(x, z) / (p(x) p(z)) the bound is JS itself: 0 for what is independent."""
    torch.manual_seed(0)
    n = 400_000
    x, noise = torch.randn(2, n, dtype=torch.float64)
    z = rho * x + math.sqrt(1 - rho**2) * noise

    def best(x, z):
        quadratic = (x**2 - 2 * rho * x * z + z**2) / (2 * (1 - rho**2)) - (x**2 + z**2) / 2
        return -quadratic - 0.5 * math.log(1 - rho**2)

    values = jensen_shannon(best(x, z), best(others(x), z))
    error = SIGMAS * 0.5 * float(values.std()) / math.sqrt(n) * 2
    exact = js_of_gaussians(rho)
    assert abs(divergence_bound(float(values.mean())) - exact) <= error + 1e-9
    assert (exact < 1e-9) == (rho == 0.0)
    worse = jensen_shannon(best(x, z) + 1.0, best(others(x), z) + 1.0)
    assert divergence_bound(float(worse.mean())) < exact
    assert divergence_bound(0.0) == pytest.approx(math.log(2))


@pytest.mark.parametrize("dependent", [False, True])
def test_a_trained_discriminator_finds_what_there_is(dependent):
    """Codes of pure noise say nothing, and the bound stays at 0; codes of x say much."""
    torch.manual_seed(0)
    model = longflow.build("infomax", shape=(2,), latent=1, width=8, units=32)
    if not dependent:
        for p in model.head.parameters():
            p.requires_grad_(requires_grad=False).zero_()
    objective, optimiser = MutualInformation(alpha=1.0, gamma=1e-3), torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(200):
        for _, loss in objective(model, torch.randn(256, 2), None):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    torch.manual_seed(1)
    found = divergence_bound(model.terms(torch.randn(5000, 2))["global"].mean().item())
    assert found > 0.2 if dependent else -0.02 < found < 0.02
    assert found <= math.log(2)


def test_vectors_have_the_global_term_only():
    assert set(small("infomax", (7,)).terms(torch.randn(3, 7, dtype=torch.float64))) == {"global", "kl"}
    pictures = small("infomax", (1, 8, 8))
    assert set(pictures.terms(torch.rand(3, 1, 8, 8, dtype=torch.float64))) == {"global", "local", "kl"}
    assert pictures.trunk.space == (4, 4)
    assert has_statistics(pictures)


# Learning


@pytest.mark.parametrize("name", REPRESENTATIONS)
def test_learns(name):
    torch.manual_seed(0)
    model = longflow.build(name, shape=(1, 8, 8), **{**SMALL[name], "latent": 8})
    x = torch.rand(96, 1, 8, 8)
    y = torch.arange(96) % 3
    x[:, :, :3] += y[:, None, None, None]
    adapt(model, x)
    model.train()
    objective, optimiser = CATALOGUE[name].objective(), torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        for _, loss in objective(model, x, y):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5


# Calibration


def test_calibration_of_known_probabilities():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 100_000)
    labels = (rng.uniform(size=len(p)) > p).astype(int)
    assert calibration_error(np.stack([p, 1 - p], 1), labels) < 0.01
    sure = np.stack([np.full(1000, 0.9), np.full(1000, 0.1)], 1)
    half = np.arange(1000) % 2
    assert calibration_error(sure, half) == pytest.approx(0.4)
    mixed = np.concatenate([sure, np.stack([np.full(1000, 0.2), np.full(1000, 0.8)], 1)])
    assert calibration_error(mixed, np.concatenate([half, np.ones(1000, int)])) == pytest.approx(0.3)
    assert calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0.0
    with pytest.raises(UsageError, match="probabilities"):
        calibration_error(sure, half[:3])


def test_terms_are_means_over_all_rows_however_they_are_cut():
    model = small("vib", (4,)).float()
    rows, labels = np.random.default_rng(0).normal(size=(501, 4)).astype(np.float32), np.arange(501) % 3
    found = terms_of(model, rows, labels, 0)
    close(torch.tensor(found["rate"]), model.bottleneck.rate(model.encoder(torch.from_numpy(rows))).mean(), 1e-5)
    infomax = small("infomax", (4,)).float()
    assert math.isfinite(terms_of(infomax, rows, None, 0)["global"])
    with pytest.raises(UsageError, match="at least 2 rows"):
        terms_of(infomax, rows[:1], None, 0)


def test_negatives_are_drawn_from_all_rows_whatever_their_order():
    """Of rows sorted by class the next row is no stranger: a half of all pairs are of two classes, here."""

    class Strangers(InfoMax):
        def terms(self, x, context=None):
            return {"global": (x != others(x)).to(x).mean(1)}

    model = small("infomax", (4,)).float()
    model.__class__ = Strangers
    rows = np.repeat(np.array([0.0, 1.0], np.float32), 300)[:, None] * np.ones((1, 4), np.float32)
    shares = [terms_of(model, rows, None, seed)["global"] for seed in (0, 0, 1, 2, 3)]
    assert shares[0] == shares[1]
    assert len(set(shares)) > 1
    assert shares == pytest.approx([0.5] * 5, abs=SIGMAS * 0.5 / 600**0.5)


def test_nearest_codes_are_those_of_least_angle():
    codes, among = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.1, 1.0], [9.0, 1.0], [0.1, 0.0]])
    which, distances = nearest(codes, among, 2, "cosine")
    assert which.tolist() == [[2, 1], [0, 1]]
    close(
        torch.from_numpy(distances), torch.tensor([[0.0, 1 - 9 / 82**0.5], [1 - 1 / 1.01**0.5, 1 - 1 / 82**0.5]]), 1e-6
    )


def test_confusions_are_coloured_by_shares_of_a_row():
    """A class of 1,000 that is told rightly is as dark as one of 10: the diagonal of either has the same colour."""
    pictures = [
        np.asarray(Image.open(io.BytesIO(figures.confusion(np.diag([n] * 30)))).convert("RGB")) for n in (10, 1000)
    ]
    assert np.array_equal(*pictures)
    assert (pictures[0].min(2) < 60).mean() > 0.005
    for bad in (np.zeros((2, 3)), np.zeros((0, 0)), -np.eye(2), np.zeros(4)):
        with pytest.raises(UsageError, match="expected counts"):
            figures.confusion(bad)


# Bad input


@pytest.mark.parametrize(
    ("name", "shape", "options", "says"),
    [
        ("vib", (4,), {"classes": 1}, "at least 2 classes; 1 came"),
        ("vib", (4,), {"latent": 0}, "latent >= 1; 0 came"),
        ("vib", (4,), {"width": 0}, "width >= 1"),
        ("vib", (4,), {"network": "conv"}, "convolutions expect pictures"),
        ("vib", (4,), {"network": "cov"}, "conv"),
        ("vib", (2, 2), {}, "events of shape"),
        ("infomax", (4,), {"latent": 0}, "latent >= 1; 0 came"),
        ("infomax", (4,), {"units": 0}, "units >= 1"),
        ("infomax", (1,), {}, "events of shape"),
        ("infomax", (1, 8, 8), {"halvings": 4}, "at most 3 halvings; 4 came"),
        ("infomax", (1, 8, 8), {"halvings": -1}, "halvings >= 0"),
        ("infomax", (1, 8, 8), {"features": "learnt"}, "learned"),
        ("infomax", (4,), {"classes": 3}, "unknown option 'classes'"),
    ],
)
def test_bad_representations_are_told(name, shape, options, says):
    with pytest.raises(UsageError, match=says):
        longflow.build(name, shape=shape, **options)


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        (InformationBottleneck, {"beta": -1.0}, "beta >= 0; -1.0 came"),
        (InformationBottleneck, {"beta": math.nan}, "beta >= 0"),
        (InformationBottleneck, {"threshold": -1.0}, "threshold >= 0"),
        (InformationBottleneck, {"target": -1.0}, "target >= 0"),
        (InformationBottleneck, {"target": 5.0, "ascent": 0.0}, "an ascent above 0"),
        (InformationBottleneck, {"target": 5.0, "threshold": 2.0}, "no threshold"),
        (MutualInformation, {"alpha": -0.1}, "alpha >= 0"),
        (MutualInformation, {"beta_local": math.inf}, "beta_local >= 0"),
        (MutualInformation, {"gamma": -0.1}, "gamma >= 0"),
        (MutualInformation, {"alpha": 0.0, "beta_local": 0.0}, "tell nothing"),
    ],
)
def test_bad_objectives_are_told(kind, fields, says):
    with pytest.raises(UsageError, match=says):
        kind(**fields)


def test_what_does_not_fit_is_told():
    model = small("vib", (4,))
    with pytest.raises(UsageError, match=r"shape \(B, 4\)"):
        model.encode(torch.zeros(2, 5, dtype=torch.float64))
    with pytest.raises(UsageError, match=r"expected events of torch\.float64"):
        model.encode(torch.zeros(2, 4))
    with pytest.raises(UsageError, match="classes of its data; none came"):
        model.terms(torch.zeros(2, 4, dtype=torch.float64))
    with pytest.raises(UsageError, match="knows no classes"):
        small("infomax", (4,)).probabilities(torch.zeros(2, 4, dtype=torch.float64))
    with pytest.raises(UsageError, match=r"longflow\.build"):
        VIB((4,), nn.Linear(4, 4), 2, 3).save("anywhere")
    with pytest.raises(UsageError, match="at least 1 number"):
        Bottleneck(0)


# Through the doors

QUICK = ["--steps", "60", "--threads", "1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("representations")
    made = {
        "vib": ["vib", "--preset", "digits", "--lr", "0.005", "--warmup", "1"],
        "adaptive": [
            "vib",
            "--preset",
            "digits",
            "--target",
            "0.5",
            "--ascent",
            "0.001",
            "--lr",
            "0.005",
            "--warmup",
            "1",
        ],
        "infomax": ["infomax", "--preset", "digits"],
        "moons": ["infomax", "--data", "two-moons", "--latent", "2", "--width", "8"],
    }
    for name, given in made.items():
        assert main(["train", *given, *QUICK, "--out", str(folder / name)]) == 0
    return folder


def test_evaluation_of_a_bottleneck(runs, capsys):
    found = answer(capsys, "evaluate", runs / "vib")
    assert found["likelihood"] == "none"
    assert found["nats"] is None
    assert found["bits_per_dim"] is None
    assert found["error"] < 0.5
    assert found["rate_bits"] == pytest.approx(found["terms"]["rate"] / math.log(2))
    drawn = answer(capsys, "evaluate", runs / "vib", "--draws", 5)
    assert drawn["draws"] == 5
    assert drawn["cross_entropy"] != found["cross_entropy"]
    assert drawn["terms"] == found["terms"]
    model = longflow.load(runs / "vib")
    from longflow.commands.datasets import dataset_of
    from longflow.runs import Run

    dataset = dataset_of(Run.open(runs / "vib"))
    p = model.probabilities(torch.from_numpy(dataset.split("test")).float()).detach()
    y = torch.from_numpy(dataset.labels["test"])
    assert found["error"] == pytest.approx(float((p.argmax(1) != y).double().mean()))
    assert found["cross_entropy"] == pytest.approx(float(-p[torch.arange(len(y)), y].log2().mean()), rel=1e-4)
    assert main(["evaluate", str(runs / "vib")]) == 0
    assert "bits of their data" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "term"), [("vib", "rate"), ("infomax", "kl")])
def test_diagnosis_of_representations(runs, capsys, name, term):
    found = answer(capsys, "diagnose", runs / name)
    assert found["kl"] == pytest.approx(answer(capsys, "evaluate", runs / name)["terms"][term], rel=1e-5)
    assert found["kl"] == pytest.approx(sum(found["kl_of_dims"]))
    assert found["kl"] == pytest.approx(found["mutual_information"] + found["gap"])
    assert found["stderr_kl"] is found["kl_of_groups"] is found["prior_classes"] is None
    assert len(found["kl_of_dims"]) == found["dims"]
    assert main(["diagnose", str(runs / name), "-n", "50"]) == 0
    assert "KL by unit" in capsys.readouterr().out


def test_evaluation_of_infomax(runs, capsys):
    found = answer(capsys, "evaluate", runs / "infomax")
    assert set(found["js_bounds"]) == {"global", "local"}
    for name, bound in found["js_bounds"].items():
        assert bound == pytest.approx(0.5 * found["terms"][name] + math.log(2))
        assert bound < math.log(2)
    assert "error" not in found
    assert answer(capsys, "evaluate", runs / "infomax", "-n", 501)["n"] == 360
    assert set(answer(capsys, "evaluate", runs / "moons")["js_bounds"]) == {"global"}
    assert main(["evaluate", str(runs / "infomax")]) == 0
    assert "no mutual information" in capsys.readouterr().out


def test_reports_are_written(runs, capsys):
    pages = {"vib": ["Confusions", "Nearest neighbours"], "infomax": ["Nearest neighbours"], "moons": ["Objective"]}
    for name, sections in pages.items():
        found = answer(capsys, "report", runs / name)
        assert found["baselines"] == {}
        page = (runs / name / "report.html").read_text()
        assert all(section in page for section in sections)
        assert "it has codes and no density" in page
    assert "makes none" in refused(capsys, "report", runs / "vib", "--attribute", 3)


def test_probes_stand_beside_rows_and_an_untrained_encoder(runs, capsys):
    found = answer(capsys, "probe", runs / "vib", "--labels", 200)
    assert set(found["probes"]) == {"embedding", "untrained", "rows"}
    assert found["probes"]["embedding"]["labels"] == 200
    assert found["probes"]["embedding"]["linear"] > 0.7
    assert found["probes"]["embedding"] != found["probes"]["untrained"]
    assert found["numbers"] == 16
    assert answer(capsys, "probe", runs / "vib", "--labels", 200) == found
    assert main(["probe", str(runs / "infomax"), "--labels", "0"]) == 0
    assert "untrained codes" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["vae", "nice", "realnvp"])
def test_probes_of_models_with_a_density(name, tmp_path, capsys):
    given = {"vae": ["--width", "16"], "nice": ["--hidden", "16", "--depth", "1"]}
    given["realnvp"] = ["--width", "4", "--blocks", "1", "--norm", "batch"]
    assert main(["train", name, *given[name], "--steps", "20", "--threads", "1", "--out", str(tmp_path / name)]) == 0
    probes = answer(capsys, "probe", tmp_path / name, "--labels", 300)["probes"]
    assert all(probes[way]["cosine"] > 0.2 for way in probes)


def test_metrics_and_the_best_weights(runs):
    for name, terms in (("vib", ["cross_entropy", "rate"]), ("infomax", ["global", "local", "kl"])):
        records = [json.loads(line) for line in (runs / name / "metrics.jsonl").read_text().splitlines()]
        assert all(f"validation_{term}" in records[-1] for term in terms)
        assert math.isfinite(records[-1]["validation_loss"])
    assert 0 <= records[-1].get("validation_error", 0) <= 1


VERBS = [
    ["sample"],
    ["reconstruct"],
    ["interpolate"],
    ["manifold"],
    ["check"],
    ["edit", "--attribute", "3"],
    ["inpaint"],
    ["resample", "--scales", "0"],
    ["latents"],
]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
@pytest.mark.parametrize("name", ["vib", "infomax"])
def test_verbs_that_need_a_density_refuse(runs, capsys, name, verb):
    assert "it has codes and no density" in refused(capsys, verb[0], runs / name, *verb[1:])


def test_scores_are_refused(runs, capsys):
    np.save(runs / "rows.npy", np.zeros((3, 1, 8, 8), np.uint8))
    assert "it has codes and no density" in refused(capsys, "score", runs / "vib", runs / "rows.npy")


def test_bad_runs_are_refused(runs, capsys, tmp_path):
    out = ["--out", tmp_path / "run"]
    np.savez(tmp_path / "plain.npz", x=np.random.default_rng(0).normal(size=(50, 3)))
    assert "expects data with labels" in refused(capsys, "train", "vib", "--data", tmp_path / "plain.npz", *out)
    assert "labels 0 to 6" in refused(capsys, "train", "vib", "--classes", 7, *out)
    assert "labels 0 to 0" in refused(capsys, "train", "vib", "--classes", 1, *out)
    assert "latent >= 1" in refused(capsys, "train", "vib", "--latent", 0, *out)
    assert "beta >= 0" in refused(capsys, "train", "vib", "--beta", -1, *out)
    assert "tell nothing" in refused(capsys, "train", "infomax", "--alpha", 0, "--beta-local", 0, *out)
    assert "density-weight" in refused(capsys, "train", "vib", "--density-weight", 0, *out)
    assert "at least 2 rows" in refused(capsys, "train", "infomax", "--batch", 1, *out)
    assert "at least 2 rows" in refused(
        capsys, "train", "infomax", "--data", "two-moons", "--batch", 1, *out, *QUICK[2:], "--steps", 5
    )
    for flags in (["--terms", 3], ["--importance-samples", 5]):
        assert "holds no density" in refused(capsys, "evaluate", runs / "vib", *flags)
    assert "holds no density" in refused(capsys, "evaluate", runs / "infomax", "--draws", 5)
    assert "at most" in refused(capsys, "probe", runs / "vib", "--labels", 10**6)
    given = [
        "train",
        "infomax",
        "--data",
        str(tmp_path / "plain.npz"),
        "--width",
        "4",
        "--steps",
        "5",
        "--threads",
        "1",
    ]
    assert main([*given, "--out", str(tmp_path / "plain")]) == 0
    assert "with labels" in refused(capsys, "probe", tmp_path / "plain")


def test_resuming_is_bit_identical(runs, tmp_path, monkeypatch):
    """Also the weight that dual ascent moves: it is part of what is saved."""
    from longflow.commands import train as module
    from longflow.commands.configure import Settings
    from longflow.training import Recipe

    cases = {
        "adaptive": ("vib", Recipe(lr=0.005, warmup=1), {"target": 0.5, "ascent": 0.001}),
        "infomax": ("infomax", Recipe(), {}),
    }
    for run, (name, recipe, aim) in cases.items():
        count = iter(range(1000))
        half = tmp_path / run
        with monkeypatch.context() as patch:
            patch.setattr(module, "anywhere", lambda asked, count=count: next(count) == 30)
            settings = Settings(out=str(half), steps=60, threads=1, preset="digits")
            with pytest.raises(module.Interrupted):
                module.train_run(name, settings, recipe, {}, aim)
        if run == "adaptive":
            saved = torch.load(half / "checkpoint" / "last.pt", weights_only=True)["state"]["model"]
            assert saved["multiplier.added"] > 0
        assert main(["train", name, "--out", str(half), "--resume"]) == 0
        assert (half / "model.safetensors").read_bytes() == (runs / run / "model.safetensors").read_bytes()


def test_a_resumed_run_keeps_its_objective(runs, capsys, tmp_path):
    shutil.copytree(runs / "adaptive", tmp_path / "run")
    assert "target 0.5" in refused(capsys, "train", "vib", "--out", tmp_path / "run", "--resume", "--target", 9)


def test_a_code_that_says_nothing_is_warned_of_once(tmp_path, capsys):
    given = ["train", "vib", "--preset", "digits", "--beta", "1000", "--lr", "0.01", "--ema", "0"]
    assert main([*given, *QUICK[2:], "--steps", "300", "--out", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().err.count("the code says nothing") == 1


def test_tables_are_standardised(tmp_path, capsys):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    x = rng.normal(size=(400, 3)) * [1, 100, 0.01] + [5, -300, 0.5] + np.array([2, 200, 0.0]) * y[:, None]
    np.savez(tmp_path / "rows.npz", x=x.astype(np.float32), y=y)
    out = tmp_path / "run"
    given = ["--data", str(tmp_path / "rows.npz"), "--classes", "2", "--latent", "2", "--width", "16"]
    assert main(["train", "vib", *given, "--steps", "200", "--threads", "1", "--out", str(out)]) == 0
    assert answer(capsys, "evaluate", out)["error"] < 0.25

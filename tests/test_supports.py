"""Declared supports: the notation, the maps to the whole line, whole columns dequantised, and what is refused."""

import importlib
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import integrate
from tolerances import NORMALISED, SIGMAS, close

import longflow
from longflow.bijections import (
    Affine,
    Chain,
    Coupling,
    HalfToOne,
    Interleave,
    Learned,
    Standardise,
    Unconstrain,
    Under,
)
from longflow.commands.scales import energies
from longflow.data import Dataset, Support
from longflow.data.cautions import cautions
from longflow.data.support import LARGEST_WHOLE, declared, require_inside
from longflow.distributions import Dequantised, Flow, MixedDequantised, StandardNormal
from longflow.errors import UsageError
from longflow.models import assemble
from longflow.models.supported import fit_units, supported
from longflow.nets import MLP
from longflow.seeds import fixed_draws

INF = math.inf
DIAGNOSE = importlib.import_module("longflow.commands.diagnose")
"""The module; the package has the function of its name."""
KINDS = {"half": (2.0, INF), "half below": (-INF, 2.0), "interval": (-1.0, 3.0), "line": (-INF, INF)}


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("text", "support", "told"),
    [
        ("real", Support(), "real"),
        ("0:", Support(0.0), "0:"),
        (":1", Support(high=1.0), ":1"),
        ("-0.5:1e3", Support(-0.5, 1000.0), "-0.5:1000"),
        ("integer", Support(whole=True), "integer"),
        ("integer 0:5", Support(0, 5, whole=True), "integer 0:5"),
        ("integer 0:", Support(0.0, whole=True), "integer 0:"),
        (" integer  -3:7 ", Support(-3.0, 7.0, whole=True), "integer -3:7"),
        (":", Support(), "real"),
    ],
)
def test_notation_of_supports(text, support, told):
    assert Support.parse(text) == support
    assert str(support) == told
    assert Support.parse(told) == support


@pytest.mark.parametrize("text", ["", "positive", "1", "0:1:2", "a:b", "nan:", "integer real", "real 0"])
def test_malformed_supports_are_told(text):
    with pytest.raises(UsageError, match="expected a support"):
        Support.parse(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [("1:1", "LOW < HIGH"), ("2:1", "LOW < HIGH"), ("integer 0.5:", "whole ends"), ("integer 0:9e9", "1,048,575")],
)
def test_impossible_supports_are_told(text, says):
    with pytest.raises(UsageError, match=says):
        Support.parse(text)


def test_declarations_name_columns():
    assert declared(["b=0:", "a=b=integer"], ["a", "b", "a=b"]) == (None, Support(0.0), Support(whole=True))
    for given, says in ((["bb=0:"], "did you mean 'b'"), (["b"], "COLUMN=SUPPORT"), (["b=0:", "b=1:"], "two declared")):
        with pytest.raises(UsageError, match=says):
            declared(given, ["a", "b"])


@pytest.mark.parametrize(
    ("support", "value", "says"),
    [
        ("0:", -0.5, "'b' has -0.5 at line 4, outside its declared support '0:'"),
        (":1", 1.5, "'b' has 1.5 at line 4"),
        ("integer", 0.25, "'b' has 0.25 at line 4, outside its declared support 'integer'"),
        ("integer 0:", -1.0, "'b' has -1 at line 4"),
        ("integer", 2.0**21, "declare the column real"),
    ],
)
def test_values_outside_are_told_with_their_row(support, value, says):
    x = np.ones((5, 2), np.float32)
    require_inside("t.csv", x, ("a", "b"), (None, Support.parse(support)))
    x[2, 1] = value
    with pytest.raises(UsageError, match=says):
        require_inside("t.csv", x, ("a", "b"), (None, Support.parse(support)), lambda row: f"line {row + 2}")


def test_ends_belong_to_a_support_in_float32():
    x = np.float32([0.1, 0.7])
    assert not Support(0.1, 0.7).outside(x).any()


@pytest.mark.parametrize("kind", KINDS)
def test_unconstrain_is_normalised_over_the_support(kind):
    """∫ exp(log p) over the support, by quadrature in the data's own units, with an affine flow behind the map."""
    low, high = KINDS[kind]
    flow = Flow(Chain(Unconstrain([low], [high]), Learned(Affine(), (1,))), StandardNormal((1,))).double()
    with torch.no_grad():
        flow.bijection.parts[1].theta.copy_(double(0.3, -0.4)[None])
        ends = double(-12.0, 12.0)[:, None]
        box = flow.decode(ends)[:, 0].tolist()
        inside = flow.decode(torch.linspace(-12, 12, 41, dtype=torch.float64)[:, None])[:, 0].tolist()
        mass, _ = integrate.quad(
            lambda x: flow.log_prob(double(x)[None]).exp().item(), *box, points=inside[1:-1], limit=200
        )
    assert mass == pytest.approx(1, abs=NORMALISED)


@pytest.mark.parametrize("kind", KINDS)
def test_unconstrain_is_onto_the_whole_line(kind):
    low, high = KINDS[kind]
    layer = Unconstrain([low], [high]).double()
    z = torch.linspace(-14, 14, 57, dtype=torch.float64)[:, None]
    x, log_det = layer.inverse(z)
    assert ((x > low) & (x < high)).all()
    back, ahead = layer(x)
    close(back, z, 1e-8)
    close(ahead, -log_det, 1e-8)


def test_unconstrain_is_log_and_logit():
    x = double(0.2, 0.2, 0.2, 0.2)[None]
    z, log_det = Unconstrain([0.0, -INF, 0.0, -INF], [INF, 1.0, 1.0, INF]).double()(x)
    close(z, double(math.log(0.2), -math.log(0.8), math.log(0.2 / 0.8), 0.2)[None])
    close(log_det, double(-math.log(0.2) - math.log(0.8) - math.log(0.2 * 0.8)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ends_are_scored_inside_and_beyond_them_is_nothing(dtype):
    layer = Unconstrain([0.0, 0.0], [INF, 1.0]).to(dtype)
    layer.adapt_ends(torch.tensor([[0.0, 0.0], [0.5, 0.25], [3.0, 0.9], [0.0, 1.0]], dtype=dtype))
    close(layer.inset.double(), double(0.25, 0.125, 1e-6, 0.05).reshape(2, 2), 1e-7)
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [-0.1, 0.5], [1.0, 1.1]], dtype=dtype, requires_grad=True)
    z, log_det = layer(x)
    inside = layer(torch.tensor([[0.25, 0.125], [0.25, 0.95]], dtype=dtype))
    close(z[:2].double(), inside[0].double(), 1e-5)
    assert log_det[:2].isfinite().all()
    assert log_det[2:].tolist() == [-INF, -INF]
    (z.sum() + log_det[:2].sum()).backward()
    assert x.grad.isfinite().all()


def test_gradients_of_the_inverse_are_finite_far_out():
    layer = Unconstrain([0.0, -INF, 0.0, -INF], [INF, 1.0, 1.0, INF])
    z = torch.tensor([[80.0, -80.0, 90.0, 500.0], [-200.0, 200.0, -200.0, -500.0]], requires_grad=True)
    x, log_det = layer.inverse(z)
    (x.sum() + log_det.sum()).backward()
    assert x.isfinite().all()
    assert z.grad.isfinite().all()


def mixed(low=-INF, high=INF):
    """A whole and a real column, correlated, with random weights."""
    step = (Under(Interleave(k), Coupling(Affine(HalfToOne()), MLP(1, 2, hidden=8, depth=1))) for k in (0, 1))
    flow = Flow(Chain(*step), StandardNormal((2,)))
    for p in flow.parameters():
        torch.nn.init.normal_(p, std=0.4)
    flow.preprocess(Standardise(torch.zeros(2), torch.tensor([3.0 if low == -INF else 0.6, 1.0])))
    return supported(flow, [Support(low, high, whole=True), Support()]).double()


@pytest.mark.parametrize(("low", "high"), [(-INF, INF), (-2.0, 3.0)])
def test_mixed_distribution_sums_and_integrates_to_one(low, high):
    """Σ_k ∫ exp(bound) dx, of whole numbers k and a real x, from many draws of the noise."""
    model = mixed(low, high)
    whole = torch.arange(max(low, -20), min(high, 20) + 1, dtype=torch.float64)
    real = -15 + 30 * (torch.arange(150, dtype=torch.float64) + 0.5) / 150
    with torch.no_grad():
        mass = model.bound(torch.cartesian_prod(whole, real), samples=60).exp().sum().item() * 30 / 150
    assert mass == pytest.approx(1, abs=0.02)


def test_mixed_likelihood_is_a_mass_times_a_density():
    """Where the density is even within bins the bound is exact: a geometric mass and a normal density."""

    class Geometric(torch.nn.Module):
        """P(k) = 2^-(k+1), the density of k + u being the same in all of [k, k + 1)."""

        def __call__(self, x):
            return -(x[:, 0].floor() + 1) * math.log(2) - 0.5 * x[:, 1].square() - 0.5 * math.log(2 * math.pi)

    density = Flow(Chain(Learned(Affine(), (2,))), StandardNormal((2,)))
    density.log_prob = lambda x, context=None: Geometric()(x)
    model = MixedDequantised(density, low=[0, -INF], high=[INF, INF], whole=[True, False])
    x = torch.tensor([[0.0, 0.3], [3.0, -1.7]])
    expected = double(0.5, 1 / 16).log() + torch.distributions.Normal(0.0, 1.0).log_prob(x[:, 1])
    close(model.log_prob(x).double(), expected, 1e-6)
    close(model.bound(x, samples=7).double(), expected, 1e-6)
    assert model.likelihood == "lower bound"


def test_only_whole_columns_get_noise():
    model = mixed()
    x = torch.tensor([[3.0, 0.25], [-7.0, 1.5]]).double()
    y = torch.stack([model.spread(x) for _ in range(200)])
    assert (y[..., 1] == x[:, 1]).all()
    assert torch.equal(y[..., 0].floor(), x[:, 0].expand(200, 2))
    noise = y[..., 0] - x[:, 0]
    assert abs(noise.mean().item() - 0.5) < SIGMAS / math.sqrt(12 * 400)
    close(model.middle(x), x + double(0.5, 0.0))


def test_commands_give_noise_to_whole_columns_alone():
    model = mixed()
    rows = np.array([[3.0, 0.25], [-7.0, 1.5]])
    with fixed_draws(0), torch.inference_mode():
        z = model.density.encode(model.spread(torch.from_numpy(rows)))
    (found,) = energies(model, rows)
    close(found, z.square().mean(1))


def test_a_diagnosis_takes_the_middle_of_whole_columns_alone(monkeypatch):
    model = supported(longflow.build("vae", shape=(2,), latent=2), [Support(whole=True), Support()]).eval()
    seen = []
    monkeypatch.setattr(model.density, "code", lambda x: seen.append(x) or (x, torch.zeros_like(x)))
    monkeypatch.setattr(DIAGNOSE, "open_any", lambda *_: (SimpleNamespace(config=CONFIG.copy), model))
    monkeypatch.setattr(DIAGNOSE, "dataset_of", lambda *_: dataset(np.arange(4), np.arange(4) / 8))
    DIAGNOSE.diagnose("run", split="train")
    close(torch.cat(seen), torch.tensor([[k + 0.5, k / 8] for k in range(4)]))


def test_noise_stays_in_the_bin_of_the_largest_whole_number():
    model = mixed().float()
    x = torch.tensor([[float(LARGEST_WHOLE), 0.0], [-float(LARGEST_WHOLE), 0.0]]).repeat(2000, 1)
    y = model.spread(x)
    assert torch.equal(y[:, 0].floor(), x[:, 0])
    assert len(y[::2, 0].unique()) == len(y[1::2, 0].unique()) == 16


def test_noise_of_levels_stays_in_their_bins():
    flow = Flow(Chain(Learned(Affine(), (2,))), StandardNormal((2,)))
    model = Dequantised(flow, 2**20)
    x = torch.tensor([[2**20 - 1, 0]]).repeat(2000, 1)
    assert torch.equal(model.spread(x).floor().long(), x)
    with fixed_draws(0):
        noise = torch.rand(2000, 2)
    with fixed_draws(0):
        found = model.spread(x % 256)
    assert torch.equal(found, x % 256 + noise)


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 2.0**20), (torch.float64, 2.0**49)])
def test_whole_numbers_without_room_for_noise_have_no_likelihood(dtype, most):
    """A bin of less than 16 numbers: rows that have one are NaN, not the density of a number without noise."""
    model = mixed().to(dtype)
    x = torch.tensor([[most - 1, 0.5], [-most, 0.5], [most, 0.5], [-most - 1, 0.5], [-8 * most, 0.5]], dtype=dtype)
    assert model.spread(x)[:, 0].isnan().tolist() == model.log_prob(x).isnan().tolist() == [False] * 2 + [True] * 3
    assert (model.spread(x)[:, 1] == 0.5).all()
    assert len(model.spread(x[:2].repeat(1000, 1))[:, 0].unique()) == 32


def test_noise_keeps_the_gradient_of_events():
    x = torch.tensor([[3.0, 0.25]]).requires_grad_()
    mixed().float().spread(x).sum().backward()
    assert x.grad.tolist() == [[1.0, 1.0]]


def test_mixed_samples_and_codes():
    model = mixed(-2.0, 3.0)
    x = model.sample(500)
    assert set(x[:, 0].tolist()) <= {-2.0, -1.0, 0.0, 1.0, 2.0, 3.0}
    assert len(set(x[:, 0].tolist())) > 2
    close(model.decode(model.encode(x)), x, 1e-8)


def test_importance_samples_tighten_the_mixed_bound():
    model = mixed(-2.0, 3.0)
    x = model.sample(2000)
    with torch.no_grad():
        bounds = [model.bound(x, samples=k).mean().item() for k in (1, 8, 64)]
    assert bounds == sorted(bounds)


CONFIG = {
    "model": "realnvp",
    "options": {},
    "shape": [4],
    "levels": None,
    "preprocess": "standardise",
    "supports": ["integer 0:5", "0:", "0:1", None],
}


def table(n=400):
    r = np.random.default_rng(0)
    x = np.stack([r.integers(0, 6, n), np.exp(3 * r.normal(size=n)), r.beta(2, 2, n), r.normal(50, 9, n)], 1)
    return x.astype(np.float32)


def test_units_are_those_of_unconstrained_numbers():
    model, x = assemble(CONFIG), table()
    before = torch.get_rng_state()
    fit_units(model, x)
    assert torch.equal(torch.get_rng_state(), before)
    first, second = model.density.bijection.parts[0], model.density.bijection.parts[1].parts[0]
    z = second(first(model.spread(torch.from_numpy(x)))[0])[0]
    close(z.mean(0), torch.zeros(4), 0.1)
    close(z.std(0), torch.ones(4), 0.1)
    assert model.log_prob(torch.from_numpy(x)).isfinite().all()
    assert first.inset[0, 1].item() == pytest.approx(x[:, 1].min() / 2)


def test_supports_are_saved_with_the_model(tmp_path):
    model, x = assemble(CONFIG), table()
    fit_units(model, x)
    model.save(tmp_path / "m")
    loaded = longflow.load(tmp_path / "m")
    torch.manual_seed(1)
    expected = model.eval().log_prob(torch.from_numpy(x))
    torch.manual_seed(1)
    assert torch.equal(loaded.log_prob(torch.from_numpy(x)), expected)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Unconstrain([1.0], [1.0]), "low < high"),
        (lambda: supported(longflow.build("nice", shape=(2,)), [Support()]), "support for each number"),
        (lambda: supported(longflow.build("rectangular", shape=(3,), latent=2), [Support()] * 3), "real vectors"),
        (
            lambda: MixedDequantised(longflow.build("nice", shape=(2,)), low=[0, 0], high=[1, 1], whole=[False] * 2),
            "±inf for none",
        ),
        (lambda: Dequantised(longflow.build("nice", shape=(2,)), 2**20 + 1), "2 to 1,048,576 levels; 1,048,577 came"),
        (lambda: Support(0.0, 2.0**20, whole=True), "at most 1,048,575 in size; 1048576 came"),
    ],
)
def test_bad_input_is_told(call, says):
    with pytest.raises(UsageError, match=says):
        call()


def dataset(*columns, supports=None):
    x = np.stack(columns, 1).astype(np.float32)
    names = tuple("abcdef"[: x.shape[1]])
    return Dataset("t", {"train": x, "validation": x[:1], "test": x[:1]}, None, columns=names, supports=supports)


def test_cautions_tell_of_each_kind_once():
    r = np.random.default_rng(0)
    fine = r.normal(size=1000)
    assert cautions(dataset(fine, r.normal(size=1000))) == []
    whole, tied, coarse = cautions(dataset(r.integers(0, 50, 1000), np.round(fine, 2), 1e6 + fine, fine))
    assert "column 'a' has whole numbers" in whole
    assert "--support 'a=integer'" in whole
    assert "unbounded" in whole
    assert "column 'b' has values that recur" in tied
    assert "column 'c' has less than 1,000 values of float32" in coarse


def test_cautions_are_silent_on_what_is_declared_but_not_on_ends():
    r = np.random.default_rng(0)
    kids, income = r.integers(0, 5, 1000), r.exponential(size=1000)
    supports = (Support(0.0, whole=True), Support(0.0))
    assert cautions(dataset(kids, income, supports=supports)) == []
    income[:3] = 0
    (ends,) = cautions(dataset(kids, income, supports=supports))
    assert "column 'b' has values on an end" in ends
    assert cautions(dataset(kids, r.normal(size=1000), supports=(Support(), None))) == []


def test_cautions_name_three_columns_at_most():
    r = np.random.default_rng(0)
    (told,) = cautions(dataset(*(r.integers(0, 5, 100) for _ in range(5))))
    assert "columns 'a', 'b', 'c' and 2 more have" in told

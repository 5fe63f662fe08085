"""One suite for every distribution: it walks their examples()."""

import math

import pytest
import torch
from tolerances import NORMALISED, SIGMAS, close
from walking import leaves

import longflow
from longflow.bijections import Affine, Bijection, Chain, Coupling, Learned, Residual, Scale, Standardise
from longflow.distributions import (
    Binned,
    ClassNormal,
    ClusterNormal,
    Dequantised,
    DiagonalNormal,
    Distribution,
    Flow,
    GaussianMixture,
    MixedDequantised,
    NormalMixture,
    StandardLogistic,
    StandardNormal,
    Uniform,
)
from longflow.errors import UsageError
from longflow.families import NVAE, Autoencoder, ClusterVAE, VampPrior
from longflow.nets import MLP
from longflow.units import bits_per_dim

ALL = sorted(set(leaves(Distribution)), key=lambda cls: cls.__name__)
CASES = [(cls, i) for cls in ALL for i, _ in enumerate(cls.examples())]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].__name__}-{case[1]}")
def case(request):
    cls, index = request.param
    found = list(cls.examples())[index]
    for p in found.distribution.parameters():
        torch.nn.init.normal_(p, std=0.4)
    found.distribution.double()
    return found


def classes(case, n):
    """The case's context for n rows."""
    if case.context is None:
        return None
    like = next(case.distribution.parameters(), torch.zeros((), dtype=torch.float64))
    own = case.context.to(like) if case.context.is_floating_point() else case.context
    return own.expand(n, *own.shape)


def points(case, dims, some):
    """Every event of a distribution of levels, or a grid of all others; and the volume about each."""
    model = case.distribution
    if model.levels:
        x = torch.cartesian_prod(*[torch.arange(model.levels, dtype=torch.float64)] * dims)
        return x.reshape(-1, *model.shape), 1.0
    x, volume = grid(case.box, dims, some)
    return x.reshape(-1, *model.shape), volume


def grid(box, dims, points):
    """Midpoints of a regular grid over box^dims, (points^dims, dims), and the volume of a cell."""
    low, high = box
    axis = low + (high - low) * (torch.arange(points, dtype=torch.float64) + 0.5) / points
    mesh = torch.meshgrid(*[axis] * dims, indexing="ij")
    return torch.stack([m.flatten() for m in mesh], 1), ((high - low) / points) ** dims


def test_integrates_to_one_over_the_whole_line(case):
    model = case.distribution
    if isinstance(model, MixedDequantised):  # test_supports.py sums and integrates
        return
    if isinstance(model, Dequantised):
        x = torch.cartesian_prod(*[torch.arange(model.levels, dtype=torch.float64)] * model.dims)
        nats = model.bound(x, samples=20000)
        y = model.density.sample(200000)
        inside = ((y >= 0) & (y < model.levels)).all(1).double().mean()
        assert nats.exp().sum().item() == pytest.approx(inside.item(), abs=0.02)
        return
    if isinstance(model, NVAE):  # at random its weights have next to no variance; test_nvae.py integrates
        return
    if isinstance(model, Autoencoder):
        x, volume = points(case, model.dims, 75)
        with torch.no_grad():
            mass = model.bound(x, samples=3000).exp().sum().item() * volume
        assert mass == pytest.approx(1, abs=0.04)
        return
    x, volume = points(case, model.dims, 1200 if model.dims == 2 else 20000)
    with torch.no_grad():
        mass = model.log_prob(x, classes(case, len(x))).exp().sum().item() * volume
    assert mass == pytest.approx(1, abs=NORMALISED)


def test_samples_agree_with_log_prob(case):
    """The mean of log p over samples is minus the entropy, which the grid gives too."""
    model = case.distribution
    if isinstance(model, (Binned, Autoencoder)):
        return
    x, volume = points(case, model.dims, 1200 if model.dims == 2 else 20000)
    with torch.no_grad():
        p = model.log_prob(x, classes(case, len(x)))
        finite = p > -700
        entropy = -(p[finite].exp() * p[finite]).sum().item() * volume
        y = classes(case, 20000)
        drawn = -model.log_prob(model.sample(20000, y), y)
    error = drawn.std().item() / math.sqrt(len(drawn)) + 1e-4
    assert abs(drawn.mean().item() - entropy) < SIGMAS * error


def test_sample_and_log_prob_agree(case):
    if isinstance(case.distribution, (Binned, Autoencoder)):
        return
    x, log_prob = case.distribution.sample_and_log_prob(7, classes(case, 7))
    assert x.shape == (7, *case.distribution.shape)
    close(case.distribution.log_prob(x, classes(case, 7)), log_prob)


def test_samples_have_the_dtype_of_the_model(case):
    for dtype in (torch.float64, torch.float32):
        model = case.distribution.to(dtype)
        context = classes(case, 3)
        if context is not None and context.is_floating_point():
            context = context.to(dtype)
        x = model.sample(3, context)
        assert x.dtype == dtype
        assert model.log_prob(x, context).dtype == dtype


def test_temperature_zero_is_one_point_and_temperature_shrinks(case):
    model = case.distribution
    if isinstance(model, (GaussianMixture, NormalMixture, VampPrior)) or (
        isinstance(model, (ClassNormal, ClusterNormal, ClusterVAE)) and case.context is None
    ):
        return
    still = model.sample(5, classes(case, 5), temperature=0.0)
    close(still, still[:1].expand_as(still))
    torch.manual_seed(1)
    warm = model.sample(4000, classes(case, 4000), temperature=1.0).var(0).sum()
    torch.manual_seed(1)
    cool = model.sample(4000, classes(case, 4000), temperature=0.3).var(0).sum()
    assert cool < warm


def test_empty_batch(case):
    context = classes(case, 0)
    assert case.distribution.sample(0, context).shape == (0, *case.distribution.shape)
    x = torch.zeros(0, *case.distribution.shape, dtype=torch.float64)
    assert case.distribution.log_prob(x, context).shape == (0,)


def test_gradient_reaches_every_parameter(case):
    parameters = dict(case.distribution.named_parameters())
    beside = ("head.", "branches.")  # not in the density
    parameters = {name: p for name, p in parameters.items() if not name.startswith(beside)}
    if not parameters:
        return
    x = torch.rand(64, *case.distribution.shape, dtype=torch.float64)
    x = x if case.distribution.levels is None else x.round()
    case.distribution(x, classes(case, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters.values())


def test_against_torch_distributions():
    x = torch.randn(6, 3, dtype=torch.float64)
    normal = DiagonalNormal((3,)).double()
    torch.nn.init.normal_(normal.loc)
    torch.nn.init.normal_(normal.log_scale)
    oracle = torch.distributions.Normal(normal.loc, normal.log_scale.exp())
    close(normal.log_prob(x), oracle.log_prob(x).sum(1))
    close(StandardNormal((3,)).log_prob(x), torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1))
    mixture = GaussianMixture((3,), 4).double()
    parts = torch.distributions.Independent(torch.distributions.Normal(mixture.loc, mixture.log_scale.exp()), 1)
    weights = torch.distributions.Categorical(logits=mixture.logits)
    close(mixture.log_prob(x), torch.distributions.MixtureSameFamily(weights, parts).log_prob(x))
    logistic = torch.distributions.TransformedDistribution(
        torch.distributions.Uniform(torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)),
        [torch.distributions.SigmoidTransform().inv],
    )
    close(StandardLogistic((3,)).log_prob(x), logistic.log_prob(x).sum(1))


def test_logistic_log_prob_does_not_overflow():
    x = torch.tensor([[1e4], [-1e4]])
    close(StandardLogistic((1,)).log_prob(x), torch.tensor([-1e4, -1e4]))


def test_uniform_outside_is_minus_infinity():
    uniform = Uniform((2,), 0.0, 4.0)
    assert uniform.log_prob(torch.tensor([[1.0, 5.0]])).item() == -math.inf
    assert uniform.log_prob(torch.tensor([[1.0, 3.0]])).item() == pytest.approx(-2 * math.log(4))


def test_published_conversions():
    """NICE's nats in other papers' bits/dim, and a uniform model of 8-bit data."""
    assert bits_per_dim(1980.50, 784, 1 / 256) == pytest.approx(4.356, abs=5e-4)
    assert bits_per_dim(5371.78, 3072, 2 / 256) == pytest.approx(4.477, abs=5e-4)
    assert bits_per_dim(0.0, 3072, 1 / 256) == pytest.approx(8.0, abs=1e-12)


@pytest.mark.parametrize("levels", [2, 16, 17, 32, 256])
def test_a_uniform_model_costs_log2_of_the_levels(levels):
    """Whatever the units inside, the likelihood is in those of the stored levels: no constant to forget."""
    flow = Flow(Chain(Standardise(0.0, float(levels))), Uniform((1, 4, 4)))
    model = Dequantised(flow, levels)
    x = torch.randint(levels, (9, 1, 4, 4)).float()
    bits = bits_per_dim(model.log_prob(x), 16)
    close(bits.double(), torch.full((9,), math.log2(levels), dtype=torch.float64), 1e-5)


def test_dequantised_matches_a_known_discrete_model():
    """A density that is constant in each bin gives exactly the histogram's mass."""
    mass = torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64)

    class Bins(Bijection):
        def forward(self, x, context=None):
            below = torch.cat((torch.zeros(1, dtype=x.dtype), mass.cumsum(0)))
            k = x.long().clamp(0, 2)
            return below[k] + mass[k] * (x - k), mass[k].log().sum(1)

        def inverse(self, z, context=None):
            raise NotImplementedError

        @classmethod
        def examples(cls):
            return iter(())

    model = Dequantised(Flow(Bins(), Uniform((2,))), 3)
    x = torch.cartesian_prod(torch.arange(3.0, dtype=torch.float64), torch.arange(3.0, dtype=torch.float64))
    close(model.log_prob(x), mass.log()[x.long()].sum(1), 1e-6)


def test_importance_samples_tighten_the_bound():
    model = Dequantised(Flow(Learned(Scale(), (2,)), StandardNormal((2,))), 4)
    x = torch.randint(4, (4000, 2)).float()
    bounds = [model.bound(x, samples=k).mean().item() for k in (1, 4, 16, 64)]
    assert bounds == sorted(bounds)


def test_dequantised_reconstructs_every_level_and_clamps_samples():
    model = Dequantised(Flow(Chain(Standardise(0.0, 17.0), Learned(Affine(), (2,))), StandardNormal((2,))), 17)
    x = torch.randint(17, (50, 2)).float()
    assert torch.equal(model.decode(model.encode(x)), x)
    y = model.sample(200)
    assert torch.equal(y, y.floor().clamp(0, 16))


def test_dequantised_takes_levels_of_any_type_at_the_models_precision():
    model = Dequantised(Flow(Chain(Standardise(0.0, 9.0), Learned(Affine(), (2,))), StandardNormal((2,))), 9)
    for dtype in (torch.float32, torch.float64):
        model.to(dtype)
        for x in (torch.tensor([[1, 8]], dtype=torch.uint8), torch.tensor([[1, 8]]), torch.tensor([[1.0, 8.0]])):
            assert model.log_prob(x).dtype == dtype
            assert model.encode(x).dtype == dtype


def test_dequantising_an_estimate_is_an_estimate():
    flow = longflow.build("iresnet", shape=(2,), blocks=1, width=4)
    assert Dequantised(flow, 3).likelihood == "lower bound"
    next(m for m in flow.modules() if isinstance(m, Residual)).exact_dims = 1
    assert flow.likelihood == Dequantised(flow, 3).likelihood == "estimate"


def test_logistic_noise_has_no_outlier_at_zero(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *size, **kind: torch.zeros(*size))
    assert StandardLogistic((1,)).sample(1).item() > -18


def test_conditional_flow_takes_one_context_row_per_sample():
    coupling = Coupling(Affine(), MLP(1, 2, hidden=8, depth=1, context=3))
    torch.nn.init.normal_(coupling.conditioner.layers[-1].weight)
    flow = Flow(coupling, StandardNormal((2,)), (3,))
    x, c = torch.randn(5, 2), torch.randn(5, 3)
    z = flow.encode(x, c)
    close(flow.decode(z, c), x, 1e-5)
    assert not torch.allclose(flow.log_prob(x, c), flow.log_prob(x, -c))
    assert flow.sample(5, c).shape == (5, 2)
    for call in (lambda: flow.log_prob(x), lambda: flow.sample(4, c), lambda: flow.log_prob(x, c[:, :2])):
        with pytest.raises(UsageError, match="context"):
            call()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda f: f.log_prob(torch.zeros(3, 5)), r"\(B, 2\)"),
        (lambda f: f.log_prob(torch.zeros(3, 2), torch.zeros(3, 1)), "context"),
        (lambda f: f.sample(3, temperature=-0.5), "temperature"),
        (lambda f: f.sample(3, temperature=math.nan), "temperature"),
        (lambda f: f.sample(-1), "samples"),
        (lambda f: f.log_prob(torch.zeros(3, 2, dtype=torch.float64)), "float32"),
        (lambda f: f.log_prob(torch.zeros(3, 2, dtype=torch.uint8)), "float32"),
        (lambda f: StandardNormal((3,)).log_prob(torch.zeros(2, 5)), r"\(B, 3\)"),
        (lambda f: DiagonalNormal((3,)).log_prob(torch.zeros(2, 1)), r"\(B, 3\)"),
        (lambda f: Uniform((2,)).sample(3, temperature=2.0), "at most 1"),
        (lambda f: Uniform((2,), 1.0, 1.0), "low < high"),
        (lambda f: GaussianMixture((2,), 0), "component"),
        (lambda f: Dequantised(f, 1), "levels"),
        (lambda f: Dequantised(f, 4).bound(torch.zeros(1, 2), samples=0), "importance"),
        (lambda f: f.save("/tmp/never"), "longflow.build"),
    ],
)
def test_bad_input_is_told(call, says):
    with pytest.raises(UsageError, match=says):
        call(Flow(Learned(Scale(), (2,)), StandardNormal((2,))))


def test_standardised_latents_have_mean_zero_and_deviation_one():
    classes, mixture = ClassNormal((3,), torch.tensor([1, 2]), 2), GaussianMixture((3,), 2)
    diagonal = DiagonalNormal((3,))
    with torch.no_grad():
        classes.raw_loc.copy_(torch.tensor([[-3.0, 3.0], [3.0, -3.0]])[..., None])
        mixture.loc.copy_(torch.tensor([[-30.0], [30.0]]).expand(2, 3))
        diagonal.loc.fill_(4.0)
        for model in (classes, mixture, diagonal):
            model.log_scale.normal_()
        for model in (
            StandardNormal((3,)),
            StandardLogistic((3,)),
            Uniform((3,), -1.0, 4.0),
            diagonal,
            mixture,
            classes,
        ):
            z = model.standardised(model.sample(20000))
            assert z.mean(0).tolist() == [pytest.approx(0, abs=0.04)] * 3
            assert z.square().mean(0).tolist() == [pytest.approx(1, abs=0.06)] * 3


def test_classes_far_away_are_impossible_not_undefined():
    model = ClassNormal((3,), torch.tensor([1]), 2)
    x = torch.full((2, 3), 1e20)
    assert model.log_prob(x).tolist() == model.log_prob(x, torch.tensor([0, 1])).tolist() == [-math.inf] * 2


def test_a_flow_without_parameters_has_a_scale_map():
    assert Flow(Chain(), StandardNormal((3,))).scale_map().tolist() == [0, 0, 0]

"""Monotone elementwise maps without an inverse in closed form, and the search for their roots."""

import copy
import math

import pytest
import torch
from test_bijections import row_jacobian
from tolerances import FLOAT32_ROUND_TRIP, close
from torch import nn
from torch.func import jacrev
from walking import leaves

import longflow
from longflow.bijections import Coupling, DeepSigmoid, Learned, LogisticMixture, SumOfSquares
from longflow.bijections.root import Rooted, root
from longflow.distributions import Flow, StandardNormal
from longflow.errors import UsageError

FAR = torch.cat([sign * torch.logspace(-6, 6, 61, dtype=torch.float64) for sign in (-1, 1)])
MAPS = {
    "identity": lambda x: (x, torch.zeros_like(x)),
    "cubic": lambda x: (x + x**3, (1 + 3 * x**2).log()),
    "slow": lambda x: (3 * x.sign() * x.abs().log1p() + 1e-3 * x, (3 / (1 + x.abs()) + 1e-3).log()),
    "steps": lambda x: (x + 9 * (1e4 * (x - 1)).tanh(), (1 + 9e4 / (1e4 * (x - 1)).cosh() ** 2).log()),
}
ROOTED = [cls() for cls in sorted(set(leaves(Rooted)), key=lambda cls: cls.__name__)]

MISSING = {"Bernstein": 0.5, "SumOfSquares": 0.1}
"""Nats that a map may lack of two modes; a slope of at least 0.2 cannot be flat between them."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MAPS)
def test_roots_are_right_to_rounding_over_the_range_of_floats(name, dtype):
    x = FAR.to(dtype)
    found = root(MAPS[name], MAPS[name](x)[0])
    # What is rounded in f shows in x where f is flat.
    digits = torch.finfo(dtype).eps * (x.abs() + MAPS[name](x)[0].abs() * (-MAPS[name](x)[1]).exp())
    assert ((found - x).abs() <= 4 * digits).all()


def test_roots_are_differentiated_implicitly():
    z = torch.tensor([-3.0, 0.2, 50.0], dtype=torch.float64, requires_grad=True)
    theta = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    x = root(lambda x: (theta * x + x**3, (theta + 3 * x**2).log()), z)
    slope = theta + 3 * x**2
    by_z, by_theta = torch.autograd.grad(x.sum(), (z, theta))
    close(by_z, 1 / slope)
    close(by_theta, -x / slope)


def test_a_flat_stretch_gives_finite_roots_and_gradients():
    """Two narrow components: between them the map rounds to 0 on a whole interval, and its slope to nought."""
    means = torch.linspace(900, 1000, 64)[:, None]
    nought, narrow = torch.zeros(64, 2), torch.full((64, 2), -14.0)
    theta = torch.cat((nought, -means, means, narrow, nought), 1).requires_grad_()
    z = torch.zeros(64, 1, requires_grad=True)
    x, log_det = LogisticMixture(2).inverse(z, theta)
    assert (x.abs() < 1002).all()
    (x.sum() + log_det.sum()).backward()
    assert z.grad.isfinite().all()
    assert theta.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_roots_of_infinities_are_infinite_and_roots_beyond_the_reach_saturate(dtype):
    z = torch.tensor([math.inf, -math.inf, 0.0], dtype=dtype, requires_grad=True)
    for f in MAPS.values():
        x = root(f, z)
        assert x[:2].tolist() == [math.inf, -math.inf]
        assert x[2].isfinite()
        assert torch.autograd.grad(x[2], z)[0].isfinite().all()
    reach = 1e30 if dtype == torch.float32 else 1e100
    beyond = torch.tensor([1e4 * reach, -1e4 * reach], dtype=dtype)
    close(root(lambda x: (x, torch.zeros_like(x)), beyond) / reach, torch.tensor([1.0, -1.0], dtype=dtype), 1e-6)


def test_an_infinite_latent_is_decoded_as_by_maps_in_closed_form():
    """The features before it are those of a row without it, and its own is infinite."""
    for name in ("naf", "maf"):
        flow = longflow.build(name, shape=(3,), layers=1)
        for p in flow.parameters():
            torch.nn.init.normal_(p, std=0.3)
        with torch.no_grad():
            x = flow.decode(torch.tensor([[0.0, 0.0, math.inf], [0.0, 0.0, -math.inf], [math.inf, 0.0, 0.0]]))
            close(x[:2, :2], flow.decode(torch.zeros(2, 3))[:, :2], 1e-5)
        assert x[:2, 2].tolist() == [math.inf, -math.inf]
        assert x[2, 0] == math.inf


def test_no_slope_is_too_small_for_a_root():
    """exp(200) is infinite in float32, and times a residual of nought no number."""

    def f(x):
        return x - x.clamp(-1, 1), torch.where(x.abs() < 1.5, -200.0, 0.0)

    z = torch.zeros(1, requires_grad=True)
    x = root(f, z)
    x.backward()
    assert x.abs() <= 1
    assert z.grad.isfinite()


def test_what_is_no_number_comes_back_as_such():
    assert root(MAPS["cubic"], torch.tensor([math.nan])).isnan().all()


@pytest.mark.parametrize("map_", ROOTED, ids=repr)
def test_a_context_of_zeros_is_near_the_identity(map_):
    x = torch.linspace(-3, 3, 13)[:, None]
    z, log_det = map_(x, torch.zeros(1, map_.parameters_per_feature))
    assert (z - x).abs().max() < 0.5
    assert log_det.abs().max() < 0.5


@pytest.mark.parametrize("map_", ROOTED, ids=repr)
def test_float32_comes_back_from_far_out(map_):
    torch.manual_seed(0)
    x = FAR.float()[:, None]
    theta = 0.5 * torch.randn(1, map_.parameters_per_feature)
    z = map_(x, theta)[0]
    assert z.isfinite().all()
    close(map_.inverse(z, theta)[0] / x.abs().clamp_min(1), x / x.abs().clamp_min(1), FLOAT32_ROUND_TRIP)


@pytest.mark.parametrize("map_", [*ROOTED, DeepSigmoid(4, layers=2), SumOfSquares(3)], ids=repr)
def test_no_two_parts_start_alike(map_):
    """Parts of equal gradients would stay equal."""
    theta = torch.zeros(1, map_.parameters_per_feature, requires_grad=True)
    z, log_det = map_(torch.tensor([[-1.3], [0.2], [0.7], [2.1]]), theta)
    (0.5 * z.square().sum() - log_det.sum()).backward()
    assert len(theta.grad.unique()) == theta.numel()


@pytest.mark.parametrize("map_", [*ROOTED, DeepSigmoid(4, layers=2)], ids=repr)
def test_one_map_learns_two_modes(map_):
    """Half N(-2, 0.5²), half N(2, 0.5²), from a context of zeros; one normal lacks 0.72 nats of it."""
    torch.manual_seed(0)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(2)),
        torch.distributions.Normal(torch.tensor([-2.0, 2.0]), torch.tensor([0.5, 0.5])),
    )
    x = mixture.sample((500, 1))
    flow = Flow(Learned(map_, (1,)), StandardNormal((1,)))
    optimiser = torch.optim.Adam(flow.parameters(), 0.05)
    for _ in range(150):
        optimiser.zero_grad()
        (-flow.log_prob(x).mean()).backward()
        optimiser.step()
    missing = mixture.log_prob(x).mean() - flow.log_prob(x).mean()
    assert missing.item() < MISSING.get(type(map_).__name__, 0.05)


def test_a_mixture_takes_its_start_from_data():
    x = 10 + 0.1 * torch.randn(4000, 2, 1, 1)
    layer = Learned(LogisticMixture(3), (2, 1, 1))
    with torch.no_grad():
        layer.adapt(x)
    z = layer(x)[0]
    assert z.mean().abs() < 0.1
    assert z.std().item() == pytest.approx(1, abs=0.1)


class Maps(nn.Module):
    """A conditioner of pictures, 3x3 convolutions, whose context is a picture too."""

    def __init__(self, features, parameters, context):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(features + context, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, parameters, 3, padding=1)
        )

    def forward(self, x, context):
        return self.layers(torch.cat((x, context), 1))


@pytest.mark.parametrize("map_", ROOTED, ids=repr)
def test_couples_the_channels_of_pictures(map_):
    """As Flow++ does: every pixel of every channel has parameters of its own, from the other channels."""
    torch.manual_seed(0)
    map_ = copy.deepcopy(map_)
    flow = Coupling(map_, Maps(2, 2 * map_.parameters_per_feature, 1)).double()
    x, context = torch.randn(3, 4, 3, 2).double(), torch.randn(3, 1, 3, 2).double()
    z, log_det = flow(x, context)
    close(torch.linalg.slogdet(row_jacobian(flow, x, context)).logabsdet, log_det)
    back, inverse = flow.inverse(z, context)
    close(back, x)
    close(inverse, -log_det)
    # A pixel's transform sees its own pixel only of the half that moves.
    own = jacrev(lambda pixels: flow(pixels[None], context[:1])[0][0, 2:])(x[0])[:, :, :, 2:]
    assert (own.flatten(3).flatten(0, 2).count_nonzero(1) == 1).all()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: LogisticMixture(0), "components >= 1"),
        (lambda: DeepSigmoid(0), "signals >= 1"),
        (lambda: DeepSigmoid(layers=0), "layers >= 1"),
        (lambda: SumOfSquares(0), "polynomials >= 1"),
        (lambda: SumOfSquares(degree=0), "degree >= 1"),
        (lambda: LogisticMixture(2)(torch.zeros(2, 3), torch.zeros(2, 23)), "expects a context of 24 features"),
    ],
)
def test_bad_input_is_told(make, says):
    with pytest.raises(UsageError, match=says):
        make()

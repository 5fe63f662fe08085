"""Densities integrate to one over the whole line and the whole plane, and elementwise maps are onto."""

import math

import pytest
import torch
import torch.nn.functional as F
from test_models import COARSE, FLOWS, SMALL, stirred
from tolerances import NORMALISED, close
from walking import leaves

import longflow
from longflow.bijections import Elementwise
from longflow.errors import UsageError

LINE = [
    (cls.__name__, i)
    for cls in sorted(set(leaves(Elementwise)), key=lambda cls: cls.__name__)
    for i, example in enumerate(cls.examples())
    if example.domain is None
]
BASES = {
    "normal": lambda z: -0.5 * z.square() - 0.5 * math.log(2 * math.pi),
    "logistic": lambda z: -z.abs() - 2 * F.softplus(-z.abs()),
}
SPREADS = [0.5, 5.0]
"""Deviations of random parameters: at 5, scales differ by e^±15."""

FAR = torch.cat([sign * torch.logspace(-6, 6, 37, dtype=torch.float64) for sign in (-1, 1)])


@pytest.fixture(params=LINE, ids=lambda case: f"{case[0]}-{case[1]}")
def example(request):
    torch.manual_seed(0)
    name, index = request.param
    found = list({cls.__name__: cls for cls in leaves(Elementwise)}[name].examples())[index]
    found.bijection.double()
    return found


def maps(example, spread):
    """Return z and log-slope as functions of points (N,), and x as a function of z, each of shape (N, *shape)."""
    context = None if example.context_shape is None else spread * torch.randn(1, *example.context_shape).double()
    theta = example.bijection.parameters_in(context, torch.empty(1, *example.shape).double())

    def everywhere(points):
        return points.reshape(-1, *[1] * len(example.shape)).expand(-1, *example.shape)

    def ahead(points):
        x = everywhere(points) if points.dim() == 1 else points
        z, log_slope = example.bijection.ahead(x, theta)
        return z.expand_as(x), log_slope.expand_as(x)

    def back(points):
        z = everywhere(points) if points.dim() == 1 else points
        return example.bijection.back(z, theta)[0].expand_as(z)

    return ahead, back


@torch.no_grad()
def mass(ahead, back, log_base):
    """∫ p over the line, (*shape): trapezoids between points to ±1e30, halved where p changes, at first by latents."""
    wide = torch.sinh(torch.linspace(-69, 69, 4001, dtype=torch.float64))
    fine = back(torch.sinh(torch.linspace(-7, 7, 2001, dtype=torch.float64)))
    x = torch.cat((fine, wide.reshape(-1, *[1] * (fine.dim() - 1)).expand(-1, *fine.shape[1:]))).sort(0).values
    for _ in range(8):
        p = density(ahead, x, log_base)
        worst = (p.diff(dim=0).abs() * x.diff(dim=0)).topk(2000, 0).indices
        x = torch.cat((x, (x.gather(0, worst) + x.gather(0, worst + 1)) / 2)).sort(0).values
    return torch.trapezoid(density(ahead, x, log_base), x, dim=0)


def density(ahead, x, log_base):
    z, log_slope = ahead(x)
    return (log_base(z) + log_slope).exp()


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("spread", SPREADS)
def test_integrates_to_one_over_the_whole_line(example, spread, base):
    found = mass(*maps(example, spread), BASES[base])
    close(found, torch.ones_like(found), NORMALISED)


@pytest.mark.parametrize("spread", SPREADS)
def test_is_increasing_and_inverts_to_rounding(example, spread):
    ahead, back = maps(example, spread)
    points = FAR.sort().values
    z, log_slope = ahead(points)
    assert (z.diff(dim=0) >= 0).all()
    assert log_slope.isfinite().all()
    latents = back(points)
    assert (latents.diff(dim=0) >= 0).all()
    # Where f is steep, an error in the last digit of x shows: it is no more than that.
    z, log_slope = ahead(latents)
    one_digit = 4e-16 * (1 + latents.abs()) * log_slope.exp()
    error = (z - points.reshape(-1, *[1] * (z.dim() - 1))).abs()
    assert (error <= 100 * one_digit + 1e-13 * (1 + z.abs())).all()


def test_is_onto_and_comes_back_from_far_out(example):
    ahead, back = maps(example, 0.5)
    z, _ = ahead(FAR)
    assert (z[FAR == 1e6] > 1e4).all()
    assert (z[FAR == -1e6] < -1e4).all()
    scale = FAR.abs().clamp_min(1).reshape(-1, *[1] * (z.dim() - 1))
    x = FAR.reshape(scale.shape).expand_as(z)
    close(back(z) / scale, x / scale)


def test_a_clipped_map_is_caught():
    """What peers' layers are joined by: x / (1 + |x| / b), which ends at ±b."""

    def ahead(x):
        return x / (1 + x.abs() / 5), -2 * (x.abs() / 5).log1p()

    def back(z):
        z = z.clamp(-5 + 1e-9, 5 - 1e-9)
        return z / (1 - z.abs() / 5)

    def widened(points):
        return back(points)[:, None]

    assert mass(ahead, widened, BASES["logistic"]).item() == pytest.approx(math.tanh(2.5), abs=NORMALISED)
    assert not (ahead(FAR)[0][FAR == 1e6] > 1e4).all()


def plane(dims, reach):
    """Points of the whole line or plane, (N, dims), and the logarithm of the length or area that each stands for."""
    end = math.asinh(reach)
    t = torch.linspace(-end, end, int(41 * end), dtype=torch.float64)
    points = torch.cartesian_prod(*[t] * dims).reshape(-1, dims)
    return points.sinh(), points.cosh().log().sum(1) + dims * math.log(t[1] - t[0])


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("name", FLOWS)
def test_models_integrate_to_one_over_the_whole_plane(name, dims):
    torch.manual_seed(0)
    try:
        flow = stirred(longflow.build(name, shape=(dims,), **{**SMALL[name], **COARSE.get(name, {})})).double().eval()
    except UsageError:
        assert dims == 1
        return
    x, log_volume = plane(dims, 1e6)
    with torch.no_grad():
        parts = [
            (flow.log_prob(a) + b).exp().sum() for a, b in zip(x.split(100000), log_volume.split(100000), strict=True)
        ]
    assert sum(parts).item() == pytest.approx(1, abs=NORMALISED)

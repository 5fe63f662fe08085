"""Splines: what the shared suites do not ask of them."""

import itertools
import math

import pytest
import torch
from tolerances import FLOAT32_ROUND_TRIP, close

from longflow.bijections import (
    Affine,
    Bernstein,
    Chain,
    CircularShift,
    Coupling,
    FullCoupling,
    Leading,
    Learned,
    LinearSpline,
    QuadraticSpline,
    RationalQuadratic,
)
from longflow.bijections.circular import wrapped
from longflow.bijections.knots import Grid, bins_at, gradient
from longflow.bijections.rational_quadratic import curve
from longflow.bijections.root import root
from longflow.errors import UsageError
from longflow.nets import MLP

B = 2.0
ONTO_THE_LINE = {
    "rational": lambda: RationalQuadratic(6, bound=B, slope=1 / 3),
    "steep": lambda: RationalQuadratic(6, bound=B, slope=1e-3),
    "bounded": lambda: RationalQuadratic(6, bound=B, slope=1 / 3, tails="bounded"),
    "quadratic": lambda: QuadraticSpline(6, bound=B),
    "linear": lambda: LinearSpline(6, bound=B),
    "bernstein": lambda: Bernstein(6, bound=B),
}
SPLINES = {**ONTO_THE_LINE, "circular": lambda: RationalQuadratic(6, bound=B, tails="circular")}
IDENTITY_OUTSIDE = ("rational", "steep", "quadratic", "linear")
LEAST = {"rational": 1 / 3, "steep": 1e-3, "quadratic": 0.2, "linear": 0.2, "bernstein": 0.2, "bounded": 1 / 3}


@pytest.fixture(params=SPLINES)
def name(request):
    return request.param


def parameters(spline, rows, features=1, size=1.0, dtype=torch.float64):
    return size * torch.randn(rows, features * spline.parameters_per_feature, dtype=dtype)


def everywhere(spline, context, points):
    """Values and log-slopes of one feature at many points under one row of parameters."""
    columns = points[:, None]
    value, log_slope = spline(columns, context.expand(len(points), -1))
    return value[:, 0], log_slope


def test_a_zero_context_is_the_identity(name):
    spline = SPLINES[name]()
    x = torch.linspace(-B, B, 101, dtype=torch.float64)[:-1]
    z, log_slope = everywhere(spline, torch.zeros(1, spline.parameters_per_feature, dtype=torch.float64), x)
    close(z, x, 1e-14)
    close(log_slope, torch.zeros_like(x), 1e-14)


@pytest.mark.parametrize("size", [1.0, 4.0])
def test_values_increase_and_are_continuous_and_slopes_are_theirs(name, size):
    spline = SPLINES[name]()
    x = torch.linspace(-B, B, 40001, dtype=torch.float64)[:-1]
    z, log_slope = everywhere(spline, parameters(spline, 1, size=size), x)
    rise, step = z.diff(), x[1] - x[0]
    assert (rise > 0).all()
    slopes = log_slope.exp()
    # A jump would be a rise that no slope explains; where a slope is largest it may bend within a step.
    assert (rise <= 1.5 * step * torch.maximum(slopes[1:], slopes[:-1]) + 1e-12).all()
    assert (rise.sum() - torch.trapezoid(slopes, x)).abs() < 1e-3 * rise.sum()


@pytest.mark.parametrize("axis", [0, 1])
def test_a_knot_belongs_to_the_bin_on_its_right_and_joins_it_to_the_left_one(axis):
    grid = Grid(5, B, 0.1, 1e-3)
    shares = torch.randn(2, 5, 1, 1, dtype=torch.float64).softmax(1)
    sizes = grid.scale * grid.mixed(shares) + 2 * B * grid.floor
    close(sizes.sum(1), torch.full((2, 1, 1), 2 * B, dtype=torch.float64))
    knots = (sizes.cumsum(1) - B)[:, :, 0, 0]
    slopes = torch.arange(6.0, dtype=torch.float64)[:, None, None]
    for k in range(4):
        point = knots[axis, k].reshape(1, 1)
        after = bins_at(point + 1e-9, shares, slopes, axis, grid)[0][:, 0, 0]
        before = bins_at(point - 1e-9, shares, slopes, axis, grid)[0][:, 0, 0]
        close(before[:2] + before[2:4], after[:2])
        assert after[4:].tolist() == [k + 1, k + 2]
        assert before[5] == after[4]


def test_a_bin_has_its_left_end_and_not_its_right_one():
    grid = Grid(4, 1.25, 0.25, 0.0)  # these knots have no rounding
    shares = (torch.tensor([[2.0, 3, 1, 2], [1, 1, 4, 2]], dtype=torch.float64) / 8).reshape(2, 4, 1, 1)
    knots = (grid.scale * grid.mixed(shares)).cumsum(1)[:, :, 0, 0] - grid.bound
    slopes = torch.arange(5.0, dtype=torch.float64)[:, None, None]
    for axis, k in itertools.product(range(2), range(3)):
        found = bins_at(knots[axis, k].reshape(1, 1), shares, slopes, axis, grid)[0][:, 0, 0]
        assert torch.equal(found[:2], knots[:, k])
        assert found[4:].tolist() == [k + 1, k + 2]


@pytest.mark.parametrize("name", ["rational", "steep", "quadratic", "bernstein", "bounded"])
def test_slopes_are_continuous_at_knots_and_at_the_ends(name):
    spline = SPLINES[name]()
    x = torch.linspace(-B - 0.5, B + 0.5, 200001, dtype=torch.float64)
    jumps = [everywhere(spline, context, x[::every])[1].diff().abs().max() for context, every in _twice(spline)]
    assert jumps[0] < 0.7 * jumps[1]


def _twice(spline):
    """A step half as wide has jumps about half as large, unless the slope itself jumps."""
    context = parameters(spline, 1, size=0.5)
    return ((context, 1), (context, 2))


def test_linear_splines_jump_in_slope_alone():
    spline = LinearSpline(4, bound=B, slope=0.2)
    logits = torch.tensor([[1.0, 0.0, -1.0, 2.0]], dtype=torch.float64)
    _, log_slope = everywhere(spline, logits, torch.tensor([-1.5, -0.5, 0.5, 1.5], dtype=torch.float64))
    close(log_slope.exp(), 0.2 + 0.8 * 4 * logits.softmax(1)[0])


@pytest.mark.parametrize("name", IDENTITY_OUTSIDE)
def test_outside_is_the_identity_exactly(name):
    spline = SPLINES[name]()
    x = torch.tensor([[-1e30, -B - 1e-6, B + 1e-6, 3.0, 1e30]])
    for step in (spline, spline.inverse):
        y, log_det = step(x, parameters(spline, 1, 5, dtype=torch.float32))
        assert torch.equal(y, x)
        assert log_det.item() == 0


@pytest.mark.parametrize("name", ["bounded", "bernstein"])
def test_others_go_on_straight(name):
    spline = SPLINES[name]()
    context = parameters(spline, 1)
    points = torch.tensor([B, B + 1, B + 101], dtype=torch.float64)
    for sign in (-1, 1):
        z, log_slope = everywhere(spline, context, sign * points)
        close(log_slope, log_slope[:1].expand(3))
        close(z.diff(), sign * torch.tensor([1.0, 100.0], dtype=torch.float64) * log_slope[0].exp())


def test_bounded_splines_keep_their_box():
    spline = RationalQuadratic(5, bound=B, tails="bounded")
    x = torch.tensor([-B, B], dtype=torch.float64)
    close(everywhere(spline, parameters(spline, 1, size=3.0), x)[0], x)


def test_circles_close():
    spline = RationalQuadratic(5, bound=B, tails="circular")
    context = parameters(spline, 1)
    x = torch.tensor([-B, B - 1e-9, B - 1e-9 - 2 * B, 0.3, 0.3 + 6 * B], dtype=torch.float64)
    z, log_slope = everywhere(spline, context, x)
    close(z[0] + 2 * B, z[1], 1e-7)
    close(log_slope[0], log_slope[1], 1e-7)
    assert log_slope[0].abs() > 0.01
    close(z[[1, 3]], z[[2, 4]])


def test_shifts_turn_splines_of_circles():
    turned = Chain(Learned(CircularShift(), (2,)), Learned(RationalQuadratic(4, bound=math.pi, tails="circular"), (2,)))
    for p in turned.parameters():
        torch.nn.init.normal_(p)
    x = 2 * math.pi * torch.rand(50, 2, dtype=torch.float64) - math.pi
    z, _ = turned.double()(x)
    assert ((z >= -math.pi) & (z < math.pi)).all()
    close(turned.inverse(z)[0], x)
    close(CircularShift()(x, torch.full((1, 2), 20 * math.pi, dtype=torch.float64))[0], x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bound", [math.pi, 0.5, 3.0])
def test_angles_never_round_to_the_open_end(bound, dtype):
    end = torch.tensor([bound], dtype=dtype)
    least = torch.finfo(dtype).tiny
    before = torch.cat((-end, end, torch.nextafter(-end, -2 * end), torch.nextafter(end, 2 * end), 3 * end, -3 * end))
    found = wrapped(before.requires_grad_(), bound)
    assert ((found >= -end) & (found < end)).all()
    assert (found[:2] == -end).all()
    assert wrapped(torch.tensor([-least, 0.0, least], dtype=dtype), bound).tolist() == [-least, 0.0, least]
    found.sum().backward()
    assert torch.equal(before.grad, torch.ones_like(before))


@pytest.mark.parametrize("name", LEAST)
@pytest.mark.parametrize("size", [4.0, 50.0])
def test_slopes_stay_within_their_bounds(name, size):
    spline = SPLINES[name]()
    x = (2 * torch.rand(20000, 1, dtype=torch.float64) - 1) * B
    _, log_slope = spline(x, parameters(spline, 20000, size=size))
    m = LEAST[name]
    rational = isinstance(spline, RationalQuadratic)
    assert log_slope.exp().min() >= (m**3 if rational else m) - 1e-9
    if rational or name == "bernstein":
        assert log_slope.exp().max() <= (2 if rational else 1) / m + 1e-9


@pytest.mark.parametrize("m", [0.01, 0.1, 1 / 3, 0.9])
def test_slopes_within_a_bin_stay_between_m_cubed_and_two_over_m(m):
    """Over a grid of mean slopes s and end slopes a, b: the least is near m³ where one end is steep and one flat."""
    each = torch.logspace(math.log10(m), -math.log10(m), 15, dtype=torch.float64)
    s, a, b = (v.reshape(-1, 1) for v in torch.meshgrid(each, each, each, indexing="ij"))
    near = torch.logspace(-6, 0, 100, dtype=torch.float64)
    t = torch.cat((near, 1 - near, near / 2, 1 - near / 2))
    ends = [((slope - m).clamp(min=0) / (1 - m * slope).clamp(min=1e-300)).log() for slope in (a, b)]
    slope = curve(t, torch.stack(torch.broadcast_tensors(0 * t, 0 * t, 0 * t + 1, s, *ends)), m)[1].exp()
    assert m**3 * (1 - 1e-9) <= slope.min() <= slope.max() <= 2 / m
    if m == 0.01:
        assert slope.min() < 1.2 * m**3


@pytest.mark.parametrize(
    "spline",
    [
        RationalQuadratic(32, slope=1 / 3),
        RationalQuadratic(32, slope=1 / 3, tails="bounded"),
        RationalQuadratic(32, slope=1 / 3, tails="circular"),
        QuadraticSpline(32),
        LinearSpline(32),
        Bernstein(16),
    ],
    ids=lambda spline: type(spline).__name__,
)
def test_float32_round_trips_hold_where_parameters_are_wild(spline):
    """Peers fail here: 32 bins, parameters of deviation 4 (a discriminant below 0, or 0.08 off)."""
    x = torch.randn(20000, 1).clamp(-4.9, 4.9)
    context = parameters(spline, 20000, size=4.0, dtype=torch.float32)
    z, log_det = spline(x, context)
    back, inverse = spline.inverse(z, context)
    close(back, x, FLOAT32_ROUND_TRIP)
    assert log_det.isfinite().all()
    assert inverse.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_finite_everywhere(name, dtype):
    spline = SPLINES[name]()
    ends = torch.tensor([0.0, B, -B, B * (1 - 1e-7), -B * (1 - 1e-7), B / 3, 1e3, -1e3, 1e30, -1e30], dtype=dtype)
    for size in (0.0, 1.0, 50.0, 1e4):
        for step in (spline, spline.inverse):
            x = ends[:, None].clone().requires_grad_()
            context = parameters(spline, len(ends), dtype=dtype).sign().mul(size).requires_grad_()
            y, log_det = step(x, context)
            (y.sum() + log_det.sum()).backward()
            assert all(t.isfinite().all() for t in (y, log_det, x.grad, context.grad)), (size, step)


@pytest.mark.parametrize("tails", ["linear", "circular", "bounded"])
def test_gradients_in_closed_form_are_those_of_autograd(tails):
    spline = RationalQuadratic(3, bound=B, tails=tails, slope=0.1)
    x = torch.randn(2, 1, dtype=torch.float64, requires_grad=True)
    context = parameters(spline, 2).requires_grad_()
    assert torch.autograd.gradcheck(spline, (x, context))
    assert torch.autograd.gradgradcheck(spline, (x, context))
    assert torch.autograd.gradcheck(spline.inverse, (x, context))


@pytest.mark.parametrize("bins", [1, 2, 5])
@pytest.mark.parametrize("output", [0, 1])
def test_gradients_of_one_output_of_a_row_are_those_of_autograd(bins, output):
    """Through `curve` itself, of one row of parameters, over a batch."""
    spline = RationalQuadratic(bins, bound=B, slope=0.1)
    x = (2 * torch.rand(6, 2, dtype=torch.float64) - 1) * B
    theta = torch.randn(1, 2 * spline.parameters_per_feature, dtype=torch.float64)

    def plain(row, theta):
        shares, slopes = spline._parts(spline.parameters_in(theta, row[None]))
        return curve(row[None], bins_at(row[None], shares, slopes, 0, spline.grid)[0], spline.grid.slope)[output].sum()

    def ours(row, theta):
        return spline(row[None], theta)[output].sum()

    found, expected = (torch.func.vmap(torch.func.grad(f, (0, 1)), (0, None))(x, theta) for f in (ours, plain))
    for one, other in zip(found, expected, strict=True):
        close(one, other)


def test_gradients_of_bins_are_those_of_autograd():
    grid = Grid(5, B, 0.1, 1e-3)
    point = (2 * torch.rand(6, 3, dtype=torch.float64) - 1) * B
    shares = torch.randn(2, 5, 6, 3, dtype=torch.float64).softmax(1).requires_grad_()
    slopes = torch.randn(6, 6, 3, dtype=torch.float64, requires_grad=True)
    bins, index = bins_at(point, shares, slopes, 0, grid)
    weights = torch.randn_like(bins)
    expected = torch.autograd.grad((bins * weights).sum(), (shares, slopes))
    for ours, theirs in zip(gradient(weights, index, grid), expected, strict=True):
        close(ours, theirs)


def test_rows_of_parameters_may_be_one_and_be_mapped(name):
    spline = SPLINES[name]()
    x = (2 * torch.rand(7, 2, 3, dtype=torch.float64) - 1) * B
    one = torch.randn(1, 2 * spline.parameters_per_feature, 1, dtype=torch.float64)
    z, _ = spline(x, one)
    close(z, spline(x, one.expand(7, -1, 3))[0])
    close(spline.inverse(z, one)[0], x)
    close(torch.func.vmap(lambda row: spline(row[None], one)[0][0])(x), z)
    close(torch.func.vmap(lambda row: spline.inverse(row[None], one)[0][0])(z), x)


def test_rational_quadratics_are_those_of_the_paper():
    """Equations 4 and 5 of Durkan et al., spelled out for one bin between two knots."""
    spline = RationalQuadratic(2, bound=1.0, slope=1e-12, floor=0.0)
    logits = torch.tensor([[math.log(0.3), math.log(0.7), math.log(0.6), math.log(0.4), math.log(1.7)]])
    x, z0, z1, d0, d1 = 0.2, -1 + 2 * 0.6, 1.0, 1.7, 1.0
    x0, x1 = -1 + 2 * 0.3, 1.0
    s, xi = (z1 - z0) / (x1 - x0), (x - x0) / (x1 - x0)
    below = s + (d1 + d0 - 2 * s) * xi * (1 - xi)
    expected = z0 + (z1 - z0) * (s * xi**2 + d0 * xi * (1 - xi)) / below
    slope = s**2 * (d1 * xi**2 + 2 * s * xi * (1 - xi) + d0 * (1 - xi) ** 2) / below**2
    z, log_slope = spline(torch.tensor([[x]], dtype=torch.float64), logits.double())
    assert z.item() == pytest.approx(expected, abs=1e-7)
    assert log_slope.item() == pytest.approx(math.log(slope), abs=1e-6)


def test_bernstein_polynomials_are_exact_for_what_they_are():
    """Of degree 1 it is a line; its inverse is that of the root's definition."""
    line = Bernstein(1, bound=1.0, slope=0.1)
    z, log_slope = line(torch.tensor([[-3.0], [0.5]], dtype=torch.float64), torch.tensor([[0.25, 1.0]]).double())
    steep = (math.e + 0.1) / (1 + 0.1 * math.e)
    close(z[:, 0], 0.25 - 1 + steep * torch.tensor([-2.0, 1.5], dtype=torch.float64))
    close(log_slope, torch.full((2,), math.log(steep), dtype=torch.float64))
    cubic = Bernstein(3, bound=1.0)
    theta = torch.randn(4, 5, 1, dtype=torch.float64)
    target = torch.randn(5, 1, dtype=torch.float64)
    close(cubic.back(target, theta)[0], root(lambda x: cubic.ahead(x, theta), target))


def test_a_full_coupling_is_a_coupling_and_a_learned_map_of_the_other_half():
    whole = FullCoupling(RationalQuadratic(4), MLP(2, 33, hidden=5, depth=1), 5)
    for p in whole.parameters():
        torch.nn.init.normal_(p)
    learned = Learned(whole.transform, (2,))
    learned.theta.data = whole.theta.data
    parts = Chain(Coupling(whole.transform, whole.conditioner), Leading(2, learned))
    x = torch.randn(50, 5)
    for ours, theirs in zip(whole.double()(x.double()), parts.double()(x.double()), strict=True):
        close(ours, theirs)


def test_one_feature_and_no_row():
    coupling = Coupling(RationalQuadratic(4), MLP(1, 11, hidden=3, depth=1))
    assert coupling.inverse(torch.empty(0, 2))[0].shape == (0, 2)
    alone = Learned(RationalQuadratic(4), (1,))
    torch.nn.init.normal_(alone.theta)
    x = torch.randn(9, 1)
    z, log_det = alone(x)
    assert log_det.shape == (9,)
    close(alone.inverse(z)[0], x, FLOAT32_ROUND_TRIP)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: RationalQuadratic(0), "at least 1 bin"),
        (lambda: RationalQuadratic(bound=0.0), "0 < bound"),
        (lambda: RationalQuadratic(slope=1.0), "slope < 1"),
        (lambda: RationalQuadratic(2000), "floor"),
        (lambda: RationalQuadratic(tails="circle"), "circular"),  # type: ignore[arg-type]
        (lambda: QuadraticSpline(1), "at least 2 bins"),
        (lambda: QuadraticSpline(floor=0.2), "floor"),
        (lambda: LinearSpline(slope=0.0), "slope"),
        (lambda: Bernstein(0), "degree"),
    ],
)
def test_bad_options_are_told(make, says):
    with pytest.raises(UsageError, match=says):
        make()


@pytest.mark.parametrize("numbers", [4, 5])
def test_a_conditioner_of_other_numbers_is_refused_both_ways(numbers):
    coupling = FullCoupling(Affine(), MLP(2, numbers + 1, hidden=5, depth=1), 4)
    for step in (coupling, coupling.inverse):
        with pytest.raises(UsageError, match="expects a context of 4 features"):
            step(torch.randn(3, 4))

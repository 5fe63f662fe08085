"""Invertible residual blocks: slopes, log-determinants, estimates, inverses. Each bug known of others has a test."""

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from tolerances import SIGMAS, close
from torch.func import jacrev

from longflow.bijections import Affine, Chain, Learned, Planar, Residual, adapt
from longflow.bijections.fixed_point import FixedPoint
from longflow.bijections.series import DRAWS, SURVIVALS, Series
from longflow.constraints import constrain, tighten
from longflow.errors import InversionError, UsageError
from longflow.nets import Branch, Contraction, DenseContraction, conv_layers, linear_layers
from longflow.nets.lipschitz import (
    ACTIVATIONS,
    CLipSwish,
    LipschitzConv,
    LipschitzLinear,
    LipSwish,
    activation_of,
)
from longflow.values import values_only

BRANCHES = {
    "mlp": (lambda: Contraction(linear_layers(0.9), 5, width=8, depth=2, activation=LipSwish, context=2), (5,)),
    "conv": (lambda: Contraction(conv_layers(0.8, (3, 2)), 2, width=4, depth=2, activation=LipSwish), (2, 3, 2)),
    "dense": (lambda: DenseContraction(linear_layers(0.7), 4, growth=6, depth=3, activation=CLipSwish), (4,)),
}


@pytest.fixture(params=BRANCHES)
def case(request):
    torch.manual_seed(0)
    make, shape = BRANCHES[request.param]
    branch = strong(make().double())
    return branch, shape, torch.randn(3, *shape, dtype=torch.float64)


def strong(branch):
    """Bring every layer to its largest norm, so that series and inverses have something to do."""
    with torch.no_grad():
        for layer in branch.modules():
            if isinstance(layer, (LipschitzLinear, LipschitzConv)):
                layer.weight *= 50
                layer.constrain(1e-6, 2000)
                layer.bias += 0.3 * torch.randn_like(layer.bias)
    return branch


def residual(branch, shape, *, evaluating=False, **options):
    return Residual(branch, math.prod(shape), **options).train(not evaluating)


def exact_of(branch, x, context=None):
    """The log-determinants by autograd, differentiable."""
    rows = []
    for i, row in enumerate(x):
        own = None if context is None else context[i : i + 1]
        jacobian = jacrev(lambda a, own=own: branch(a[None], own).flatten())(row).reshape(row.numel(), row.numel())
        rows.append(torch.linalg.slogdet(torch.eye(row.numel(), dtype=x.dtype) + jacobian).logabsdet)
    return torch.stack(rows)


def dense_matrix(layer):
    """The matrix of a layer's operator, by its columns."""
    inputs = layer.inputs()
    columns = torch.eye(math.prod(inputs), dtype=torch.float64).reshape(-1, *inputs)
    return layer.operator(columns).flatten(1).T


# Slopes


@pytest.mark.parametrize(
    "layer",
    [
        lambda: LipschitzLinear(7, 4, 0.9),
        lambda: LipschitzConv(2, 3, 3, 0.9, space=(5, 4)),
        lambda: LipschitzConv(3, 2, 5, 0.5, space=(4, 4)),
        lambda: LipschitzConv(2, 3, 3, 0.97, space=(5, 4), periodic=True),
        lambda: LipschitzConv(2, 3, 3, 0.97, space=(2, 1), periodic=True),
        lambda: LipschitzConv(4, 3, 1, 0.7, space=(5, 4)),
    ],
)
def test_a_layer_has_the_norm_that_it_says(layer):
    """Others iterate on an operator without the padding, on the reshaped kernel, or never use the constant."""
    torch.manual_seed(0)
    layer = layer().double()
    assert torch.linalg.matrix_norm(dense_matrix(layer), 2) <= layer.coefficient + 1e-6
    with torch.no_grad():
        layer.weight *= 30
    true = torch.linalg.matrix_norm(dense_matrix(layer), 2).item()
    bound, exact = layer.norm_bound()
    assert bound >= true * (1 - 1e-12)
    assert exact
    assert bound == pytest.approx(true, rel=1e-9)
    assert layer.iterate(1e-10, 5000) == pytest.approx(true, rel=1e-6)
    layer.constrain(1e-6, 5000)
    assert torch.linalg.matrix_norm(dense_matrix(layer), 2).item() == pytest.approx(layer.coefficient, rel=1e-4)
    before = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight *= 0.5
    layer.constrain()
    close(layer.weight, 0.5 * before)


def test_a_norm_of_the_torus_bounds_that_of_zero_padding_closely():
    torch.manual_seed(0)
    layer = LipschitzConv(3, 3, 3, 0.9, space=(12, 12)).double()
    true = torch.linalg.matrix_norm(dense_matrix(layer), 2).item()
    assert true * (1 + 1e-6) <= layer.torus_bound() <= 1.1 * true
    large = LipschitzConv(2, 3, 3, 0.9, space=(24, 24))
    assert large.norm_bound() == (large.torus_bound(), False)
    assert large.iterate(1e-9, 5000) <= large.torus_bound()


def test_constraining_takes_all_layers_and_forward_none():
    branch = BRANCHES["mlp"][0]()
    with torch.no_grad():
        for p in branch.parameters():
            p.mul_(40)
    state = copy.deepcopy(branch.state_dict())
    branch(torch.randn(3, 5), torch.randn(3, 2))
    assert all(torch.equal(state[k], v) for k, v in branch.state_dict().items())
    constrain(branch, 1e-6, 1000)
    norms = [layer.norm_bound()[0] for layer in branch.linear]
    assert branch.slope_of(norms) <= branch.lipschitz * (1 + 1e-5)


def test_a_weight_of_nought_does_not_end_the_constraint():
    layer = LipschitzLinear(4, 4, 0.9)
    with torch.no_grad():
        layer.weight.zero_()
        layer.constrain()
        layer.weight.copy_(5 * torch.randn(4, 4))
    layer.constrain(1e-6, 1000)
    assert layer.norm_bound()[0] <= 0.9 * (1 + 1e-4)


def test_tightening_sees_a_direction_that_was_not_the_largest_before():
    torch.manual_seed(0)
    for layer in (LipschitzLinear(64, 64, 0.9), LipschitzConv(3, 3, 3, 0.9, space=(6, 6))):
        tighten(layer)
        with torch.no_grad():
            u, s, v = torch.linalg.svd(layer.weight.flatten(1))
            s[5 if len(s) > 5 else 2] = 1.8
            layer.weight.copy_(((u * s) @ v[: len(s)]).reshape(layer.weight.shape))
        tighten(layer)
        assert layer.norm_bound()[0] <= 0.9 * (1 + 1e-3)


@pytest.mark.parametrize("along", [-40.0, -18.0, -16.0, 0.0, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_planar_flows_are_finite_however_far_their_parameters(along, dtype):
    """1 + wᵀu from wᵀu rounds below 0: its logarithm was no number."""
    flow = Planar(3).to(dtype)
    with torch.no_grad():
        flow.raw_u.copy_(along * flow.w / flow.w.square().sum())
        z, log_det = flow(torch.cat((torch.zeros(1, 3), torch.randn(50, 3))).to(dtype))
        assert log_det.isfinite().all()
        assert flow.inverse(z)[1].isfinite().all()
        close(log_det[0].double(), torch.tensor(along).double().exp().log1p().log(), 1e-3)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_have_slope_at_most_one(name):
    activation = activation_of(name)().double()
    x = torch.linspace(-80, 80, 200001, dtype=torch.float64)[:, None]
    for b in (-3.0, 0.5, 4.0):
        for p in activation.parameters():
            torch.nn.init.constant_(p, b)
        point = x.clone().requires_grad_()
        out = activation(point)
        slopes = [torch.autograd.grad(out[:, k].sum(), point, retain_graph=True)[0] for k in range(out.shape[1])]
        steepest = torch.stack(slopes).square().sum(0).sqrt().max().item()
        assert 0.98 < steepest <= 1


def test_swish_is_refused_with_its_reason():
    x = torch.linspace(-10, 10, 100001, dtype=torch.float64).requires_grad_()
    assert torch.autograd.grad(F.silu(x).sum(), x)[0].max().item() == pytest.approx(1.0998, abs=1e-4)
    with pytest.raises(UsageError, match=r"1\.0998.*lipswish"):
        activation_of("swish")


@pytest.mark.parametrize("name", BRANCHES)
def test_a_branch_contracts_as_it_says(name):
    torch.manual_seed(0)
    branch = strong(BRANCHES[name][0]().double())
    x = 3 * torch.randn(200, *BRANCHES[name][1], dtype=torch.float64)
    slopes = torch.stack(
        [torch.linalg.matrix_norm(row.reshape(x[0].numel(), -1), 2) for row in jacobians_of(branch, x)]
    )
    assert 0.05 < slopes.max().item() <= branch.lipschitz


def jacobians_of(branch, x):
    context = None if getattr(branch, "context", None) is None else torch.zeros(1, 2, dtype=x.dtype)
    return [jacrev(lambda a: branch(a[None], context).flatten())(row) for row in x]


# Log-determinants


@pytest.mark.parametrize("roulette", DRAWS)
@pytest.mark.parametrize("gradient", ["neumann", "series"])
def test_with_all_probes_the_series_is_exact(case, roulette, gradient):
    """√D e_i for every i make the trace exact: the estimate is the log-determinant itself, and so is its gradient."""
    branch, shape, x = case
    dims = math.prod(shape)
    units = iter(math.sqrt(dims) * torch.eye(dims, dtype=torch.float64))

    def next_unit(like):
        return next(units).reshape(1, *shape).expand_as(like)

    series = Series(terms=400, roulette=roulette, rate=1e-9, probes=dims, probe=next_unit, gradient=gradient)
    context = torch.randn(3, 2, dtype=torch.float64)
    block = residual(branch, shape, training=series)
    weights = torch.tensor([0.0, 2.0, -0.5], dtype=torch.float64)
    point = x.clone().requires_grad_()
    wanted = [point, *branch.parameters()]
    log_det = block(point, context)[1]
    found = torch.autograd.grad((weights * log_det).sum(), wanted, allow_unused=True)
    exact = exact_of(branch, point, context)
    close(log_det, exact, 1e-8)
    for a, b in zip(found, torch.autograd.grad((weights * exact).sum(), wanted, allow_unused=True), strict=True):
        if a is None or b is None:
            assert a is None or not a.any()
            assert b is None or not b.any()
        else:
            close(a, b, 1e-8)


@pytest.mark.parametrize("roulette", ["poisson", "geometric"])
@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
def test_the_estimate_and_its_gradient_are_unbiased(case, roulette, probe):
    """4,096 draws: 256 calls (one N each) of 16 copies. Weighted rows: others take one weight for the whole batch."""
    branch, shape, x = case
    torch.manual_seed(1)
    context = torch.randn(3, 2, dtype=torch.float64)
    copies, calls = 16, 256
    many = x.repeat_interleave(copies, 0)
    given = context.repeat_interleave(copies, 0)
    block = residual(branch, shape, training=Series(terms=2, roulette=roulette, probe=probe))
    weights = torch.tensor([0.0, 2.0, -0.5], dtype=torch.float64)
    spread = weights.repeat_interleave(copies) / copies
    parameters = [p for name, p in branch.named_parameters() if name.endswith("weight") and "context" not in name]
    values, gradients = [], []
    for _ in range(calls):
        log_det = block(many, given)[1]
        found = torch.autograd.grad((spread * log_det).sum(), parameters)
        values.append(log_det.detach().reshape(3, copies).mean(1))
        gradients.append(torch.cat([g.flatten() for g in found]))
    exact = exact_of(branch, x, context)
    within(torch.stack(values), exact)
    expected = torch.autograd.grad((weights * exact).sum(), parameters)
    within(torch.stack(gradients), torch.cat([g.flatten() for g in expected]))


@pytest.mark.parametrize("roulette", ["poisson", "geometric"])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_roulette_makes_up_for_what_it_leaves_out(roulette, sign):
    """A branch so steep, and a series so short, that terms without their weights would be seen to lack."""
    torch.manual_seed(0)
    branch = Linear(4, 0.6, sign).double()
    block = residual(branch, (4,), training=Series(terms=1, roulette=roulette, rate=1.0))
    x = torch.randn(1, 4, dtype=torch.float64).expand(16, 4)
    values, gradients = [], []
    for _ in range(2000):
        log_det = block(x)[1].mean()
        gradients.append(torch.autograd.grad(log_det, branch.weight)[0].flatten())
        values.append(log_det.detach())
    exact = exact_of(branch, x[:1])
    within(torch.stack(values), exact[0])
    within(torch.stack(gradients), torch.autograd.grad(exact.sum(), branch.weight)[0].flatten())
    left_out = (0.5 if roulette == "geometric" else math.exp(-1)) * branch.weight.square().sum() / 2
    assert left_out > 6 * torch.stack(values).std() / math.sqrt(2000)


def within(draws, exact):
    """Assert that means agree with exact values to their standard errors, and that these are small enough to tell."""
    error = draws.std(0) / math.sqrt(len(draws))
    off = (draws.mean(0) - exact).abs()
    assert (off <= SIGMAS * error + 1e-12).all(), (off / error).max()
    assert error.norm() < 0.2 * exact.norm()


def test_weights_of_rows_reach_their_rows_only():
    """The known bug: weights [0, 1, 1, 1] give no gradient at all, [1, 0, 0, 0] that of the whole batch."""
    torch.manual_seed(0)
    branch = strong(BRANCHES["mlp"][0]().double())
    block = residual(branch, (5,))
    x, context = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)

    def gradient(weights):
        torch.manual_seed(7)
        log_det = block(x, context)[1]
        return torch.autograd.grad((torch.tensor(weights).double() * log_det).sum(), branch.linear[0].weight)[0]

    first, rest, whole = gradient([1, 0, 0, 0]), gradient([0, 1, 1, 1]), gradient([1, 1, 1, 1])
    assert first.abs().max() > 1e-4
    assert rest.abs().max() > 1e-4
    close(first + rest, whole)
    assert (first - whole).abs().max() > 1e-4


def test_training_in_few_dimensions_is_exact_with_its_gradient():
    torch.manual_seed(0)
    branch = strong(Contraction(linear_layers(0.95), 3, width=6, depth=2, activation=LipSwish).double())
    x = torch.randn(4, 3, dtype=torch.float64)
    for training in (True, False):
        log_det = residual(branch, (3,), evaluating=not training)(x)[1]
        close(log_det, exact_of(branch, x))
        found = torch.autograd.grad(log_det.sum(), list(branch.parameters()), allow_unused=True)
        expected = torch.autograd.grad(exact_of(branch, x).sum(), list(branch.parameters()), allow_unused=True)
        for a, b in zip(found, expected, strict=True):
            assert (a is None) == (b is None) or not (a if b is None else b).any()
            if a is not None and b is not None:
                close(a, b)


def test_memory_of_the_neumann_gradient_does_not_grow_with_terms():
    branch = BRANCHES["conv"][0]().double()
    x = torch.randn(3, 2, 3, 2, dtype=torch.float64)

    def saved(terms, gradient):
        kept = []
        block = residual(branch, (2, 3, 2), training=Series(terms=terms, roulette="none", gradient=gradient))
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            block(x)
        return sum(kept)

    assert saved(2, "neumann") == saved(40, "neumann")
    assert saved(40, "series") > 5 * saved(2, "series")


def test_checkpoints_are_refused_with_their_reason():
    with pytest.raises(UsageError, match="keep no activations anyway"):
        Chain(residual(BRANCHES["conv"][0](), (2, 3, 2)), memory="checkpoint")


def test_an_estimate_can_be_differentiated_once_and_says_so():
    block = residual(BRANCHES["conv"][0]().double(), (2, 3, 2))
    x = torch.randn(2, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match="differentiated once"):
        torch.autograd.grad(block(x)[1].sum(), x, create_graph=True)


def test_parameters_that_change_before_the_way_back_are_an_error():
    branch = BRANCHES["conv"][0]()
    block, x = residual(branch, (2, 3, 2)), torch.randn(2, 2, 3, 2)
    log_det = block(x)[1]
    with torch.no_grad():
        branch.linear[0].weight *= 2
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        log_det.sum().backward()
    others = {name: p.detach().clone().requires_grad_() for name, p in block.named_parameters()}
    with pytest.raises(RuntimeError, match="functional_call"):
        torch.func.functional_call(block, others, (x,))[1].sum().backward()


def test_frozen_branches_still_carry_the_gradient_of_x():
    torch.manual_seed(0)
    branch = strong(BRANCHES["conv"][0]().double()).requires_grad_(requires_grad=False)
    before = copy.deepcopy(branch.state_dict())
    constrain(branch)
    assert all(torch.equal(before[k], v) for k, v in branch.state_dict().items())
    x = torch.randn(2, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    z, log_det = residual(branch, (2, 3, 2))(x)
    assert torch.autograd.grad(z.sum() + log_det.sum(), x)[0].isfinite().all()


def test_a_series_ends_where_nothing_is_left(monkeypatch):
    """Denormal numbers made 32 terms of a flat branch take twenty times as long."""
    torch.manual_seed(0)
    branch = Contraction(linear_layers(0.9), 5, width=8, depth=2, activation=LipSwish)
    passes = []
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: passes.append(1) or grad(*a, **k))
    block = residual(branch, (5,), training=Series(terms=500, roulette="none", probes=200))
    x = torch.randn(2, 5)
    log_det = block(x)[1]
    assert len(passes) < 200 * 60
    close(log_det, exact_of(branch, x), 0.1)
    assert residual(branch, (5,))(torch.randn(0, 5))[1].shape == (0,)


@pytest.mark.parametrize("roulette", ["poisson", "geometric"])
@pytest.mark.parametrize("rate", [0.5, 2.0])
def test_survival_of_the_roulette_is_that_of_its_draws(roulette, rate):
    torch.manual_seed(0)
    draws = torch.tensor([DRAWS[roulette](rate) for _ in range(4000)], dtype=torch.float64)
    assert draws.mean().item() == pytest.approx(rate, abs=SIGMAS * draws.std().item() / math.sqrt(4000))
    for j in range(4):
        share = SURVIVALS[roulette](rate, j)
        assert (draws >= j).double().mean().item() == pytest.approx(share, abs=SIGMAS * math.sqrt(0.25 / 4000))


def test_bias_bound_of_a_cut_series_holds():
    """g = -0.9 x has the largest bias there is: the cut estimate is off by the bound itself."""
    branch = Linear(3, 0.9, -1).double()
    with torch.no_grad():
        branch.weight.copy_(-0.9 * torch.eye(3, dtype=torch.float64))
    for terms in (1, 5, 10):
        series = Series(terms=terms, roulette="none")
        found = residual(branch, (3,), evaluating=True, exact_dims=1, evaluation=series)(torch.randn(2, 3).double())[1]
        close(found - 3 * math.log(1 - 0.9), torch.full((2,), series.bias_bound(3, 0.9), dtype=torch.float64))
    assert Series().bias_bound(3, 0.9) == 0


def test_large_events_are_estimated_in_evaluation_and_say_so():
    torch.manual_seed(0)
    branch, shape = BRANCHES["conv"][0]().double(), (2, 3, 2)
    block = residual(strong(branch), shape, evaluating=True, exact_dims=4)
    assert block.estimates
    assert not residual(branch, shape, evaluating=True).estimates
    assert Chain(block, Learned(Affine(), shape)).estimates
    x = torch.randn(3, *shape, dtype=torch.float64)
    with torch.inference_mode():
        first, second = block(x)[1], block(x)[1]
    assert (first != second).any()
    close(first, exact_of(branch, x), 2)


def test_values_only_computes_no_log_determinant():
    branch = BRANCHES["conv"][0]().double()
    block = residual(branch, (2, 3, 2), evaluating=True)
    x = torch.randn(3, 2, 3, 2, dtype=torch.float64)
    with values_only():
        z, log_det = block(x)
        back, other = block.inverse(z)
    close(z, block(x)[0])
    close(back, x, 1e-8)
    assert not log_det.any()
    assert not other.any()
    assert block(x)[1].any()


def test_the_callers_tensor_is_left_alone():
    block = residual(BRANCHES["mlp"][0](), (5,))
    x, context = torch.randn(3, 5), torch.randn(3, 2)
    block(x, context)
    assert not x.requires_grad
    with torch.no_grad():
        z, log_det = block(x, context)
    assert not z.requires_grad
    assert not log_det.requires_grad


def test_the_context_is_used():
    block = residual(strong(BRANCHES["mlp"][0]()), (5,), evaluating=True)
    x = torch.randn(3, 5)
    one, other = (block(x, torch.randn(3, 2)) for _ in range(2))
    assert (one[0] != other[0]).any()
    assert (one[1] != other[1]).any()


# Inverses


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("coefficient", [0.5, 0.9, 0.97, 0.99])
def test_inverse_meets_its_bound(coefficient, dtype):
    """Others stop at steps of 3e-3. Worst branches: linear, of norm c along some direction, of either sign."""
    torch.manual_seed(0)
    for sign in (1, -1):
        branch = Linear(6, coefficient, sign).to(dtype)
        block = Residual(branch, 6)
        x = 3 * torch.randn(50, 6, dtype=dtype)
        with torch.no_grad():
            z = x + branch(x)
            back = block.root(z)[0]
        allowed = {torch.float32: 4e-5, torch.float64: 1e-11}[dtype] / (1 - coefficient)
        close(back, x, allowed)


class Linear(Branch):
    def __init__(self, features, coefficient, sign):
        super().__init__()
        self.lipschitz = float(coefficient)
        q = torch.linalg.qr(torch.randn(features, features))[0]
        scales = coefficient * torch.linspace(0.2, 1, features)
        self.weight = torch.nn.Parameter(sign * (q * scales) @ q.T)

    def forward(self, x, context=None):
        return x @ self.weight.T

    def slope_of(self, norms):
        return self.lipschitz


@pytest.mark.parametrize(("features", "coefficient"), [(16, 0.995), (256, 0.999)])
def test_slow_rows_are_waited_for(features, coefficient):
    """A steady ratio of 0.995 is progress, not a stall."""
    torch.manual_seed(0)
    branch = Linear(features, coefficient, 1).double()
    how = FixedPoint(accelerate=features > 16, most=20000)
    x = torch.randn(3, features, dtype=torch.float64)
    with torch.no_grad():
        close(Residual(branch, features, inversion=how).root(x + branch(x))[0], x, 1e-8)


def test_rounding_of_large_values_is_no_failure():
    branch = Contraction(linear_layers(0.9), 16, width=32, depth=1, activation=LipSwish)
    with torch.no_grad():
        branch.linear[-1].bias.fill_(100)
    block = residual(branch, (16,), evaluating=True)
    x = torch.randn(20, 16)
    close(block.inverse(block(x)[0])[0], x, 1e-3)
    with pytest.raises(InversionError):
        block.inverse(torch.full((1, 16), 1e20))


def test_an_inversion_error_survives_pickling():
    error = pickle.loads(pickle.dumps(InversionError("row(s) 1", [1], [0.5])))
    assert (str(error), error.rows, error.errors) == ("row(s) 1", [1], [0.5])


def test_anderson_saves_iterations_where_contraction_is_slow():
    torch.manual_seed(0)
    branch = Linear(16, 0.98, 1).double()
    z = torch.randn(20, 16, dtype=torch.float64)
    with torch.no_grad():
        fast, slow = (
            Residual(branch, 16, inversion=FixedPoint(accelerate=a, most=5000)).root(z) for a in (True, False)
        )
    close(fast[0], slow[0], 1e-9)
    assert fast[1].max() < 0.3 * slow[1].min()


def test_rows_stop_on_their_own():
    torch.manual_seed(0)
    branch = strong(BRANCHES["dense"][0]().double())
    block = residual(branch, (4,), evaluating=True)
    z = torch.randn(30, 4, dtype=torch.float64) * torch.logspace(-6, 2, 30, dtype=torch.float64)[:, None]
    with torch.no_grad():
        together, counts = block.root(z)
        for i in (0, 15, 29):
            alone, count = block.root(z[i : i + 1])
            close(alone[0], together[i], 1e-13 * (1 + together[i].abs().max().item()))
            assert count.item() == counts[i].item()
    assert counts.unique().numel() > 1


def test_log_det_of_the_inverse_is_taken_at_x_with_its_sign():
    torch.manual_seed(0)
    branch = strong(Contraction(linear_layers(0.95), 4, width=8, depth=1, activation=LipSwish).double())
    block = residual(branch, (4,), evaluating=True)
    x = torch.randn(5, 4, dtype=torch.float64)
    z, log_det = block(x)
    close(block.inverse(z)[1], -log_det)
    assert (block(z)[1] - log_det).abs().max() > 1e-3


@pytest.mark.parametrize("size", [1.0, 1e-9])
@pytest.mark.parametrize("exact_dims", [64, 1])
def test_gradient_of_the_inverse_is_that_of_the_implicit_function(exact_dims, size):
    """Small gradients too: means over a batch of pictures have sizes at which an absolute tolerance stops at once."""
    torch.manual_seed(0)
    branch = strong(Contraction(linear_layers(0.9), 3, width=6, depth=2, activation=LipSwish, context=1).double())
    block = residual(branch, (3,), evaluating=True, exact_dims=exact_dims)
    z = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    context = torch.randn(4, 1, dtype=torch.float64, requires_grad=True)
    wanted = [z, context, branch.linear[0].weight]
    with values_only():
        x = block.inverse(z, context)[0]
    weight = size * torch.randn_like(x)
    found = torch.autograd.grad((weight * x).sum(), wanted)
    # dL = (I + J)⁻ᵀ weight · (dz - dg) at x held fixed
    held = x.detach()
    jacobian = torch.stack(
        [jacrev(lambda a, i=i: branch(a[None], context[i : i + 1])[0])(row) for i, row in enumerate(held)]
    )
    eye = torch.eye(3, dtype=torch.float64)
    pulled = torch.linalg.solve((eye + jacobian).transpose(1, 2), weight[..., None])[..., 0].detach()
    expected = torch.autograd.grad((pulled * (z - branch(held, context))).sum(), wanted)
    for a, b in zip(found, expected, strict=True):
        close(a / size, b / size, 1e-8)


def test_inverse_of_no_contraction_names_its_rows():
    branch = Linear(3, 0.9, 1)
    block = Residual(branch, 3, inversion=FixedPoint(most=50, accelerate=False))
    with torch.no_grad():
        branch.weight.mul_(3)
    z = torch.randn(4, 3)
    z[2] = 0
    with pytest.raises(InversionError, match=r"rows 0 .*error") as caught:
        block.inverse(z)
    assert caught.value.rows == [0, 1, 3]
    assert all(error > 1e-3 or math.isnan(error) for error in caught.value.errors)


def test_inverse_of_numbers_that_are_none_names_its_rows():
    block = residual(BRANCHES["dense"][0](), (4,), evaluating=True)
    z = torch.randn(3, 4)
    z[1, 0] = math.nan
    with pytest.raises(InversionError, match=r" row 1 "):
        block.inverse(z)


def test_adapting_is_not_repeated_on_load():
    """A flag that is a Python attribute is lost on load, and the next batch initialises anew: there is no flag here."""
    torch.manual_seed(0)
    chain = Chain(Learned(Affine(), (5,)), residual(BRANCHES["mlp"][0](), (5,), evaluating=True))
    adapt(chain, 3 * torch.randn(50, 5) + 1, torch.randn(50, 2))
    again = Chain(Learned(Affine(), (5,)), residual(BRANCHES["mlp"][0](), (5,), evaluating=True))
    again.load_state_dict(chain.state_dict())
    x, context = torch.randn(4, 5), torch.randn(4, 2)
    close(again.train()(x, context)[0], chain(x, context)[0])


@pytest.mark.parametrize("coefficient", [0.0, 1.0, -0.5, 1.5, math.nan])
def test_coefficients_out_of_range_are_refused(coefficient):
    with pytest.raises(UsageError, match="0 < coefficient < 1"):
        linear_layers(coefficient)
    with pytest.raises(UsageError, match="0 < coefficient < 1"):
        conv_layers(coefficient, (4, 4))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Series(terms=0), "terms >= 1"),
        (lambda: Series(probes=0), "probes >= 1"),
        (lambda: Series(rate=0.0), "rate > 0"),
        (lambda: Series(rate=math.inf), "rate > 0"),
        (lambda: Series(roulette="russian"), "unknown roulette"),
        (lambda: Series(probe="gausian"), "did you mean 'gaussian'"),
        (lambda: FixedPoint(tolerance=0.0), "tolerance > 0"),
        (lambda: FixedPoint(most=0), "most >= 1"),
        (lambda: Residual(torch.nn.Linear(2, 2), 2), "lipschitz < 1"),
        (lambda: LipschitzConv(1, 1, 2, 0.5, space=(4, 4)), "odd side"),
        (lambda: activation_of("relu"), "slope of relu jumps"),
    ],
)
def test_bad_input_is_told(make, says):
    with pytest.raises(UsageError, match=says):
        make()

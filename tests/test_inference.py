"""Flows fitted to densities: their gradients, bounds and weights against closed forms, in float64."""

import math
import signal
from functools import partial

import pytest
import torch
from tolerances import SIGMAS, close

import longflow
from longflow.bijections import Affine, Chain, Coupling, Learned, Shift, Standardise, TriangularLinear
from longflow.distributions import DiagonalNormal, Flow, StandardNormal, Uniform
from longflow.errors import TrainingDivergedError, UsageError
from longflow.inference import (
    ForwardKL,
    ReverseKL,
    Weighted,
    fit_density,
    generalised_pareto,
    importance,
    laplace,
    pareto_smoothed,
)
from longflow.nets import MLP
from longflow.training import Recipe

MEAN = torch.tensor([1.0, -2.0], dtype=torch.float64)
TRIL = torch.tensor([[0.5, 0.0], [1.0, 2.0]], dtype=torch.float64)
LOG_Z = 0.7
"""Of the target: exp(0.7) times a normal density."""


def target(x):
    return torch.distributions.MultivariateNormal(MEAN, scale_tril=TRIL).log_prob(x) + LOG_Z


def full_rank(mean=MEAN, tril=TRIL):
    """The family that holds the target, at the target unless told otherwise."""
    flow = Flow(Chain(Learned(Shift(), (2,)), TriangularLinear(2, tril)), StandardNormal((2,))).double()
    with torch.no_grad():
        (shift,) = flow.bijection.parts[0].parameters()
        shift.copy_(-mean.reshape(shift.shape))
        flow.bijection.parts[1].lower.copy_(tril.tril(-1))
        flow.bijection.parts[1].log_scale.copy_(tril.diagonal().log())
    return flow


def wide(scale, dims=2):
    """A normal proposal of one deviation for the standard normal."""
    return Flow(Standardise(0.0, scale), StandardNormal((dims,))).double()


def standard(x):
    return -0.5 * x.square().sum(1)


def coupling():
    torch.manual_seed(3)
    flow = Flow(Coupling(Affine(), MLP(1, 2, hidden=8, depth=1)), DiagonalNormal((2,))).double()
    with torch.no_grad():
        for p in flow.parameters():
            p += 0.2 * torch.randn_like(p)
    return flow


def gradients(flow, objective, n, draws):
    """Return `draws` gradients of the loss, in nats, each of all parameters: (draws, P)."""
    found = []
    for _ in range(draws):
        ((_, loss),) = objective(flow, torch.empty(n, 0), None)
        grads = torch.autograd.grad(loss * 2 * math.log(2), list(flow.parameters()))
        found.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(found)


def test_the_path_gradient_has_no_variance_at_the_optimum_and_the_total_one_has():
    flow = full_rank()
    path = gradients(flow, ReverseKL(target), 16, 3)
    close(path, torch.zeros_like(path))
    assert gradients(flow, ReverseKL(target, gradient="total"), 16, 3).abs().max() > 0.05


@pytest.mark.parametrize("gradient", ["path", "total"])
def test_both_gradients_are_those_of_the_divergence(gradient):
    """KL(N(m, s²) ‖ N(0, 1)) = ½ (m² + s² - 1) - log s a dimension: ∂/∂m = m, ∂/∂log s = s² - 1."""
    flow = Flow(Chain(), DiagonalNormal((2,))).double()
    m, log_s = torch.tensor([0.5, -1.0]).double(), torch.tensor([0.3, -0.4]).double()
    with torch.no_grad():
        flow.base.loc.copy_(m)
        flow.base.log_scale.copy_(log_s)
    found = gradients(flow, ReverseKL(standard, gradient=gradient), 4000, 40)
    exact = torch.cat((m, (2 * log_s).exp() - 1))
    error = found.std(0) / math.sqrt(len(found))
    assert bool(((found.mean(0) - exact).abs() < SIGMAS * error).all())
    assert float(error.max()) < 0.01


def test_the_path_gradient_leaves_parameters_as_it_found_them():
    flow = coupling()
    flow.base.loc.requires_grad_(False)
    ((_, loss),) = ReverseKL(standard)(flow, torch.empty(8, 0), None)
    loss.backward()
    assert [p.requires_grad for p in flow.parameters()].count(False) == 1
    assert flow.base.loc.grad is None
    assert flow.base.log_scale.grad is not None


def test_the_loss_is_minus_the_elbo():
    flow = coupling()
    torch.manual_seed(5)
    ((_, path),) = ReverseKL(target)(flow, torch.empty(50, 0), None)
    torch.manual_seed(5)
    ((_, total),) = ReverseKL(target, gradient="total")(flow, torch.empty(50, 0), None)
    torch.manual_seed(5)
    x = flow.sample(50)
    elbo = (target(x) - flow.log_prob(x)).mean()
    close(path, -elbo / (2 * math.log(2)))
    close(total, path)


def test_forward_kl_has_the_gradient_of_the_cross_entropy():
    """-E_p log N(x; m, s²) for p = N(0, 1): ∂/∂m = m/s², ∂/∂log s = 1 - (1 + m²)/s² a dimension."""
    flow = Flow(Chain(), DiagonalNormal((2,))).double()
    m, log_s = torch.tensor([0.4, -0.3]).double(), torch.tensor([0.5, 0.3]).double()
    with torch.no_grad():
        flow.base.loc.copy_(m)
        flow.base.log_scale.copy_(log_s)
    found = gradients(flow, ForwardKL(standard), 10_000, 30)
    variance = (2 * log_s).exp()
    exact = torch.cat((m / variance, 1 - (1 + m.square()) / variance))
    error = found.std(0) / math.sqrt(len(found))
    assert bool(((found.mean(0) - exact).abs() < SIGMAS * error + 1e-3).all())  # its bias falls as 1/B
    assert float(error.max()) < 0.01


@pytest.mark.parametrize("objective", [ReverseKL, ForwardKL])
def test_a_normal_family_converges_to_a_normal_target(objective):
    flow = full_rank(torch.tensor([0.0, 0.0]).double(), torch.tensor([[1.0, 0.0], [0.0, 1.0]]).double())
    recipe = Recipe(batch=256, lr=0.05, warmup=0, ema=0.0)
    fit = fit_density(flow, target, objective=objective, steps=300, recipe=recipe, draws=2000)
    near, bound = {ReverseKL: (1e-3, 2e-4), ForwardKL: (0.05, 2e-3)}[objective]
    close(fit.flow.bijection.parts[1].inverse_matrix().detach(), TRIL, near)
    assert fit.weighted.elbo == pytest.approx(LOG_Z, abs=bound)
    assert fit.weighted.log_z == pytest.approx(LOG_Z, abs=bound)
    assert fit.weighted.ess == pytest.approx(2000, rel=bound)
    assert fit.weighted.trusted
    assert fit.step == len(fit.history) == 300


def test_weights_of_normals_have_the_closed_forms():
    """p̃ = exp(-|x|²/2), q = N(0, s² I): E w² / (E w)² = (s²/√(2 s² - 1))^D, Z = 2π, E log w from E|x|² = D s²."""
    s = 1.5
    found = importance(wide(s), standard, 200_000)
    moment = s**4 / (2 * s**2 - 1)
    assert found.ess / 200_000 == pytest.approx(1 / moment, rel=0.01)
    assert found.log_z_stderr == pytest.approx(math.sqrt((moment - 1) / 200_000), rel=0.02)
    assert abs(found.log_z - math.log(2 * math.pi)) < SIGMAS * found.log_z_stderr
    elbo = -(s**2) + math.log(2 * math.pi) + 2 * math.log(s) + 1
    assert abs(found.elbo - elbo) < SIGMAS * found.elbo_stderr
    assert found.elbo_stderr == pytest.approx((s**2 - 1) / math.sqrt(200_000), rel=0.02)
    assert found.elbo < found.log_z
    mean, error = found.mean(found.samples.square())
    assert bool(((mean - 1).abs() < SIGMAS * error).all())
    again = found.resample(50_000, seed=1)
    close(again.square().mean(0), torch.ones(2).double(), 0.05)
    assert torch.equal(found.resample(100, seed=2), found.resample(100, seed=2))


def test_weights_of_the_density_itself_are_equal():
    found = importance(full_rank(), target, 500)
    assert found.ess == pytest.approx(500, rel=1e-9)
    assert found.log_z == pytest.approx(LOG_Z, abs=1e-9)
    assert found.elbo == pytest.approx(LOG_Z, abs=1e-9)
    assert found.k_hat == -math.inf


def test_a_fit_is_weighed_by_other_draws_than_it_was_trained_by():
    seen = []

    def log_density(x):
        seen.append(x.detach())
        return standard(x)

    fit = fit_density(coupling(), log_density, steps=1, recipe=Recipe(batch=8, lr=1e-9), draws=8)
    assert (seen[0] - fit.weighted.samples).abs().max() > 0.1
    again = fit_density(coupling(), standard, steps=1, recipe=Recipe(batch=8, lr=1e-9), draws=8)
    assert torch.equal(again.weighted.samples, fit.weighted.samples)


class Doubtful(Flow):
    """A flow whose log q is exact in evaluation and an estimate without bias in training, like some of many numbers."""

    def sample_and_log_prob(self, n, context=None, temperature=1.0):
        x, log_q = super().sample_and_log_prob(n, context, temperature)
        return x, log_q + 2 * torch.randn(n).to(x) if self.training else log_q


def test_the_weights_of_the_forward_divergence_are_those_of_evaluation():
    flow = Doubtful(full_rank().bijection, StandardNormal((2,))).double().train()
    flow.base.eval()
    torch.manual_seed(0)
    ((_, loss),) = ForwardKL(target)(flow, torch.empty(400, 0), None)
    torch.manual_seed(0)
    close(loss, -flow(flow.sample(400)).mean() / (2 * math.log(2)), 1e-9)  # q = p: all weights are equal
    assert [flow.training, flow.bijection.training, flow.base.training] == [True, True, False]


def test_weights_are_of_the_evaluation_mode_and_of_exact_likelihoods():
    flow = Doubtful(full_rank().bijection, StandardNormal((2,))).double().train()
    assert importance(flow, target, 200).ess == pytest.approx(200, rel=1e-9)
    assert flow.training
    for inexact, told in (
        (Flow(Learned(Affine(), (3,)), StandardNormal((3,)), padding=1), "'lower bound' came"),
        (longflow.build("residualflow", (80,), width=8, blocks=1), "'estimate' came"),
    ):
        with pytest.raises(UsageError, match=told):
            importance(inexact, standard, 5)


def test_means_are_of_values_of_any_type():
    weighted = Weighted(torch.zeros(4, 1), torch.tensor([0.1, 0.2, 0.3, 0.4]).log())
    for values in (torch.tensor([1, 0, 0, 1]), torch.tensor([True, False, False, True])):
        mean, error = weighted.mean(values)
        assert float(mean) == pytest.approx(0.5)
        assert float(error) == pytest.approx(math.sqrt((0.01 + 0.04 + 0.09 + 0.16) / 4))
    double = torch.full((4, 2), 1 / 3, dtype=torch.float64)
    assert weighted.mean(double)[0].dtype == torch.float64
    with pytest.raises(UsageError, match="each of 4 draws"):
        weighted.mean(torch.ones(1))


def test_draws_follow_from_the_seed_and_leave_the_generator_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    a, b, c = (importance(wide(1.2), standard, 5000, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a.samples, b.samples)
    assert not torch.equal(a.samples, c.samples)
    assert len(a.samples) == 5000


@pytest.mark.parametrize("k", [-0.4, 0.2, 0.7, 1.3])
def test_the_tail_index_of_a_generalised_pareto_is_found(k):
    """Asymptotically k̂ has the standard error (1 + k)/√N."""
    u = torch.rand(20_000, dtype=torch.float64)
    found, scale = generalised_pareto(2.5 * torch.expm1(-k * torch.log1p(-u)) / k)
    assert abs(found - k) < SIGMAS * (1 + max(k, 0)) / math.sqrt(20_000) + 1e-3
    assert scale == pytest.approx(2.5, rel=0.06)


@pytest.mark.parametrize("variance", [0.2, 0.4, 0.7])
def test_k_hat_is_the_tail_index_of_normal_weights(variance):
    """In the plane, weights of N(0, I) by N(0, s² I) are exactly Pareto: P(w > t) ∝ t^(-1/k), k = 1 - s²."""
    n = 100_000
    found = importance(wide(math.sqrt(variance)), standard, n).k_hat
    k, tail = 1 - variance, 3 * math.sqrt(n)
    assert abs(found - k) < SIGMAS * (1 + k) / math.sqrt(tail)
    assert importance(wide(1.3), standard, n).k_hat < 0.2  # bounded weights


def test_smoothing_keeps_the_body_and_steadies_the_mean():
    """Weights of infinite variance (k = 0.7): smoothed, log Z varies less about its value."""
    proposal = wide(math.sqrt(0.3))
    raw, smooth = [], []
    for seed in range(60):
        found = importance(proposal, standard, 1000, seed=seed)
        raw.append(found.log_z)
        smooth.append(found.smoothed().log_z)
        order = found.log_weights.argsort()
        before, after = found.log_weights[order], found.smoothed().log_weights[order]
        assert torch.equal(before[:-95], after[:-95])  # 3 √1000 are smoothed
        assert bool((after.diff() >= 0).all())
        assert after[-1] <= before[-1]
        assert not torch.equal(before, after)
    exact = math.log(2 * math.pi)
    errors = [math.sqrt(sum((v - exact) ** 2 for v in values) / 60) for values in (raw, smooth)]
    assert errors[1] < errors[0]


def test_k_hat_of_few_or_equal_weights():
    assert pareto_smoothed(torch.zeros(100))[1] == -math.inf
    assert pareto_smoothed(torch.randn(10))[1] == math.inf
    few = torch.full((1000,), -math.inf)
    few[:3] = 0.0
    few[3] = 1.0
    assert pareto_smoothed(few)[1] == math.inf


def test_laplace_of_a_normal_is_the_normal():
    found = laplace(target, torch.zeros(2))
    close(found.mode, MEAN, 1e-6)
    close(found.scale_tril, TRIL, 1e-6)
    assert found.log_z == pytest.approx(LOG_Z, abs=1e-6)
    weighted = importance(found.flow(), target, 100)
    assert weighted.ess == pytest.approx(100, rel=1e-4)  # its numbers are stored in float32


def test_laplace_refuses_what_has_no_maximum():
    with pytest.raises(UsageError, match="no maximum"):
        laplace(lambda x: -x[:, 0].square(), torch.ones(2))
    with pytest.raises(UsageError, match="below ∞"):
        laplace(lambda x: x[:, 0].exp(), torch.zeros(2))
    with pytest.raises(UsageError, match="start of shape"):
        laplace(target, torch.zeros(1, 2))


def test_a_whitened_flow_fits_a_narrow_ridge():
    """A target of deviations 1e-3 and 10 far from the origin, which Laplace finds and a flow then bends to."""

    def ridge(x):
        u = (x[:, 0] - 300) / 10
        return -0.5 * u.square() - 0.5 * ((x[:, 1] - 5) / 1e-3 - 0.3 * u.square()).square()

    torch.manual_seed(0)
    flow = Flow(Coupling(Affine(), MLP(1, 2, hidden=16, depth=2)), StandardNormal((2,)))
    flow.preprocess(laplace(ridge, torch.tensor([250.0, 4.0])).whitening())
    fit = fit_density(flow.double(), ridge, steps=400, recipe=Recipe(lr=5e-3, warmup=0, ema=0.99))
    exact = math.log(2 * math.pi * 10 * 1e-3)
    assert abs(fit.weighted.log_z - exact) < SIGMAS * fit.weighted.log_z_stderr + 1e-3
    assert fit.weighted.ess > 0.9 * 10_000
    assert fit.weighted.elbo == pytest.approx(exact, abs=0.05)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_fit_that_was_stopped_goes_on_bit_by_bit(ema):
    recipe = Recipe(batch=16, lr=0.01, ema=ema)
    fit = partial(fit_density, steps=20, recipe=recipe, draws=10)
    whole = fit(coupling(), standard)
    asked = []

    def interrupting(x):
        asked.append(len(x))
        if len(asked) == 8:
            signal.raise_signal(signal.SIGINT)
        return standard(x)

    half = fit(coupling(), interrupting)
    assert half.step == 8
    assert len(half.history) == 8
    rest = fit(coupling(), standard, begun=half.state)
    assert rest.history == whole.history
    for a, b in zip(rest.flow.parameters(), whole.flow.parameters(), strict=True):
        assert torch.equal(a, b)
    assert rest.weighted.log_z == whole.weighted.log_z


MODELS = {
    "realnvp": {"width": 8, "blocks": 1},
    "nice": {"hidden": 8, "depth": 1},
    "maf": {"hidden": 8, "layers": 2},
    "iaf": {"hidden": 8, "layers": 2},
    "nsf": {"hidden": 8, "blocks": 1, "layers": 2},
}


@pytest.mark.parametrize(
    "options", [(name, MODELS[name]) for name in MODELS] + [("nsf", {**MODELS["nsf"], "kind": "autoregressive"})]
)
def test_the_total_gradient_is_the_path_gradient_and_the_score(options):
    """For the same draws they differ by ∂ log q(x; θ)/∂θ at x held fixed, row by row: exact, not on average."""
    torch.manual_seed(1)
    flow = longflow.build(options[0], (3,), **options[1]).double()
    with torch.no_grad():
        for p in flow.parameters():
            p += 0.1 * torch.randn_like(p)
    found = {}
    for gradient in ("path", "total"):
        torch.manual_seed(2)
        ((_, loss),) = ReverseKL(standard, gradient=gradient)(flow, torch.empty(6, 0), None)
        found[gradient] = torch.autograd.grad(loss * 3 * math.log(2), list(flow.parameters()), materialize_grads=True)
    torch.manual_seed(2)
    drawn = flow.sample(6).detach()
    score = torch.autograd.grad(flow.log_prob(drawn).mean(), list(flow.parameters()), materialize_grads=True)
    for total, path, rest in zip(found["total"], found["path"], score, strict=True):
        close(total, path + rest, 1e-8)
    assert max(float(rest.abs().max()) for rest in score) > 1e-3


@pytest.mark.parametrize("name", ["realnvp", "nsf"])
def test_models_of_the_catalogue_are_fitted(name):
    torch.manual_seed(0)
    flow = longflow.build(name, (2,), **MODELS[name])
    before = importance(flow, lambda x: target(x.double()).float(), 1000).elbo
    recipe = Recipe(batch=64, lr=1e-2, warmup=0, ema=0.9)
    fit = fit_density(flow, lambda x: target(x.double()).float(), steps=60, recipe=recipe, draws=1000)
    assert before < fit.weighted.elbo - 1
    assert fit.weighted.elbo < LOG_Z + SIGMAS * fit.weighted.elbo_stderr


def mistake(log_density, flow=None, **kwargs):
    with pytest.raises(UsageError) as told:
        fit_density(flow or coupling(), log_density, steps=2, recipe=Recipe(batch=8), **kwargs)
    assert "\n" not in str(told.value)
    return str(told.value)


def spoiled(value, rows):
    def log_density(x):
        log_p = standard(x).clone()
        log_p[rows] = value
        return log_p

    return log_density


def test_mistakes_are_told():
    assert "shape (8,)" in mistake(lambda x: x)
    assert "(8, 1) came" in mistake(lambda x: standard(x)[:, None])
    assert "float came" in mistake(lambda x: 0.0)
    assert "nan came in 2 of 8 rows (2, 5)" in mistake(spoiled(math.nan, [2, 5]))
    assert "inf came in 1 of 8 rows (0)" in mistake(spoiled(math.inf, [0]), objective=ForwardKL)
    assert "support" in mistake(spoiled(-math.inf, [3]))
    assert "none has any density" in mistake(spoiled(-math.inf, slice(None)), objective=ForwardKL)
    assert "without context" in mistake(standard, longflow.build("nice", (2,), context=3))
    assert "batches" in mistake(standard, longflow.build("realnvp", (2,), norm="batch"))
    assert "dropout 0; 0.2 came" in mistake(standard, longflow.build("nice", (2,), hidden=8, depth=1, dropout=0.2))
    assert "lower bound" in mistake(standard, Flow(Learned(Affine(), (3,)), StandardNormal((3,)), padding=1))
    assert "1 step" in mistake(standard, draws=0)
    with pytest.raises(UsageError, match="did you mean 'path'"):
        ReverseKL(standard, gradient="paths")
    with pytest.raises(UsageError, match="at least 1 draw; 0 came"):
        importance(wide(1.0), standard, 0)
    with pytest.raises(UsageError, match="none has any density"):
        importance(wide(1.0), spoiled(-math.inf, slice(None)), 10)
    with pytest.raises(UsageError, match="for each"):
        Weighted(torch.zeros(3, 2), torch.zeros(2))
    with pytest.raises(UsageError, match="number of samples"):
        importance(wide(1.0), standard, 5).resample(-1)


def test_a_density_of_bounded_support_has_weights():
    """p uniform on [0, 1]², q on [-1, 1]²: a quarter of the draws has all of the weight, and log Z = 0."""
    flow = Flow(Standardise(0.0, 1.0), Uniform((2,), -1.0, 1.0)).double()
    found = importance(flow, lambda x: torch.where((x >= 0).all(1), 0.0, -math.inf), 40_000)
    assert found.ess / 40_000 == pytest.approx(0.25, abs=0.01)
    assert abs(found.log_z) < SIGMAS * found.log_z_stderr
    assert found.elbo == -math.inf


def test_a_gradient_that_is_not_finite_is_told_with_its_layer():
    def steep(x):
        return -(x[:, 0] - x[:, 0].detach()).abs().sqrt()  # 0, of gradient NaN

    with pytest.raises(TrainingDivergedError, match=r"step 1: .* non-finite gradient in"):
        fit_density(coupling(), steep, steps=2, recipe=Recipe(batch=8))

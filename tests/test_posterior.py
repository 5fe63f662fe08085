"""Posteriors of simulators: against the exact one of a linear-Gaussian simulator, and calibration against both."""

import math
import re

import pytest
import torch
from tolerances import close
from torch import nn
from torch.distributions import constraints

from longflow.adaptive import settle
from longflow.bijections import Affine, Chain, Coupling, Logit, Standardise
from longflow.distributions import Flow, StandardNormal
from longflow.errors import TrainingDivergedError, UsageError
from longflow.inference import Posterior, fit_posterior, pairs, sbc_ranks, uniformity
from longflow.nets import MLP, Standardiser
from longflow.objectives import MaximumLikelihood, WeightedLikelihood, weigh
from longflow.training import Recipe
from longflow.training.early import Held

A = torch.tensor([[1.0, 0.5], [-0.3, 2.0], [0.7, 0.7]])
NOISE = 0.5
OPTIONS = {"width": 32, "blocks": 1}
QUICK = Recipe(batch=200, lr=3e-3, schedule="constant", warmup=0, ema=0.98)


def simulate(n, seed=0):
    """θ ~ N(0, I), x = A θ + N(0, ½²)."""
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(n, 2, generator=generator)
    return theta, theta @ A.T + NOISE * torch.randn(n, 3, generator=generator)


def exact(x):
    covariance = torch.linalg.inv(torch.eye(2) + A.T @ A / NOISE**2)
    return covariance @ A.T @ x / NOISE**2, covariance


def exact_sample(n, x, widen=1.0, shift=0.0):
    mean, covariance = exact(x)
    return torch.distributions.MultivariateNormal(mean + shift, covariance * widen**2).sample((n,))


def shuffled(x):
    """The same observation in other units, as a series of one channel."""
    return (100 + 7 * x).unsqueeze(1)


@pytest.fixture(scope="module")
def learned():
    theta, x = simulate(4000)
    return fit_posterior(theta, x, "realnvp", options=OPTIONS, recipe=QUICK, epochs=25, patience=10)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_posterior_of_a_linear_simulator_is_the_exact_one(learned, seed):
    x = simulate(1, seed)[1][0]
    mean, covariance = exact(x)
    theta = learned.sample(4000, x).samples
    deviations = covariance.diagonal().sqrt()
    assert bool(((theta.mean(0) - mean).abs() / deviations < 0.25).all())
    close(theta.T.cov() / torch.outer(deviations, deviations), covariance / torch.outer(deviations, deviations), 0.25)


def test_the_held_out_likelihood_is_near_the_best_there_is(learned):
    """E log p(θ | x) of the exact posterior is minus its entropy."""
    entropy = float(torch.distributions.MultivariateNormal(torch.zeros(2), exact(torch.zeros(3))[1]).entropy())
    assert learned.held.best == pytest.approx(-entropy, abs=0.15)
    assert len(learned.held.training) == len(learned.held.validation) <= 25
    theta, x = simulate(2000, seed=5)
    with torch.no_grad():
        assert float(learned.flow.log_prob(theta, x).mean()) == pytest.approx(-entropy, abs=0.1)


def test_observations_come_raw_through_an_embedding_and_in_any_units():
    theta, x = simulate(2000)
    embedding = nn.Sequential(nn.Flatten(), nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4))
    recipe = Recipe(batch=100, lr=5e-3, warmup=0, ema=0.9)
    options = {"hidden": 16, "depth": 1}
    posterior = fit_posterior(
        theta, shuffled(x), "nice", options=options, embedding=embedding, recipe=recipe, epochs=20
    )
    assert posterior.flow.context_shape == (1, 3)
    seen = simulate(1, 1)[1]
    mean, covariance = exact(seen[0])
    found = posterior.sample(1000, shuffled(seen)[0]).samples
    assert bool(((found.mean(0) - mean).abs() / covariance.diagonal().sqrt() < 0.5).all())


def test_a_posterior_is_cut_off_at_the_support():
    """q = N(0, I) whatever x; the quadrant θ > 0 holds a quarter."""
    flow = Flow(Coupling(Affine(), MLP(1, 2, hidden=4, depth=1, context=3)), StandardNormal((2,)), (3,))
    support = constraints.independent(constraints.positive, 1)
    found = Posterior(flow, Held(), support).sample(5000, torch.zeros(3))
    assert found.samples.shape == (5000, 2)
    assert bool((found.samples > 0).all())
    assert found.acceptance == pytest.approx(0.25, abs=0.02)
    close(found.samples.mean(0), torch.full((2,), math.sqrt(2 / math.pi)), 0.05)
    assert Posterior(flow, Held()).sample(10, torch.zeros(3)).acceptance == 1.0
    assert Posterior(flow, Held(), support).sample(0, torch.zeros(3)).samples.shape == (0, 2)
    for wrong in (torch.zeros(1, 3), torch.zeros(2), torch.zeros(())):
        with pytest.raises(UsageError, match=rf"one observation of shape \(3,\); {re.escape(str(tuple(wrong.shape)))}"):
            Posterior(flow, Held(), support).sample(5, wrong)
    beyond = constraints.independent(constraints.greater_than(50.0), 1)
    with pytest.raises(UsageError, match="mass elsewhere"):
        Posterior(flow, Held(), beyond).sample(5, torch.zeros(3))


def test_a_bijection_of_the_support_rejects_nothing():
    """θ ~ U(2, 4): its logit, of (θ - 2)/2, is what the flow sees."""
    theta = 2 + 2 * torch.rand(500, 2)
    x = theta + 0.3 * torch.randn(500, 2)
    support = constraints.independent(constraints.interval(2.0, 4.0), 1)
    first = Chain(Standardise(2.0, 2.0), Logit(0.0))
    posterior = fit_posterior(
        theta, x, "realnvp", options=OPTIONS, support=support, unconstrained=first, recipe=QUICK, epochs=3
    )
    assert posterior.sample(2000, torch.tensor([2.0, 4.0])).acceptance == 1.0


def test_training_ends_when_held_out_rows_stop_getting_likelier():
    theta, x = simulate(60)
    posterior = fit_posterior(
        theta,
        x,
        "realnvp",
        options={"width": 64, "blocks": 1},
        recipe=Recipe(batch=54, lr=0.02, warmup=0, ema=0.0),
        patience=3,
    )
    values = posterior.held.validation
    assert max(values) == values[-4] == posterior.held.best
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))[:6]
    with torch.no_grad():
        assert float(posterior.flow.log_prob(theta[order], x[order]).mean()) == pytest.approx(
            posterior.held.best, abs=1e-4
        )


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_batch_statistics_are_settled_on_the_weights_that_are_kept(ema):
    """The kept model is the validated one: settling it on the same rows again changes nothing, on no others either."""
    theta, x = simulate(400)
    options, recipe = {**OPTIONS, "norm": "batch"}, Recipe(batch=60, lr=0.01, warmup=0, ema=ema)
    posterior = fit_posterior(theta, x, "realnvp", options=options, recipe=recipe, epochs=6)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    out, rest = order[:40], order[40:]
    with torch.no_grad():
        kept = posterior.flow.log_prob(theta[out], x[out])
        settle(posterior.flow, theta[rest], x[rest])
        close(posterior.flow.log_prob(theta[out], x[out]), kept, 1e-4)
    assert float(kept.mean()) == pytest.approx(posterior.held.best, abs=1e-4)
    with pytest.raises(UsageError, match="batches of at least 2"):
        fit_posterior(theta, x, "realnvp", options=options, recipe=Recipe(batch=1), epochs=1)


@pytest.mark.parametrize(("theta_unit", "x_unit"), [(2.0**-27, 1.0), (2.0**-70, 2.0**-70), (2.0**60, 2.0**40)])
def test_units_do_not_matter(theta_unit, x_unit):
    """Powers of 2 leave every standardised number as it is, and log p(θ | x) is that of another unit."""
    theta, x = simulate(100)
    theta, x = torch.cat((theta, torch.full((100, 1), 0.1)), 1), torch.cat((x, torch.zeros(100, 1)), 1)
    plain, other = (
        fit_posterior(theta * a, x * b, "nice", options={"hidden": 8, "depth": 1}, epochs=2).held.validation
        for a, b in ((1.0, 1.0), (theta_unit, x_unit))
    )
    moved = 2 * math.log(theta_unit)  # the third parameter does not vary: nothing to scale by
    assert other == pytest.approx([value - moved for value in plain], abs=1e-3)


def test_numbers_that_are_constant_but_for_rounding_are_not_scaled():
    units = Standardiser((3,))
    values = torch.tensor([0.1, -3e7, 0.0], dtype=torch.float64).repeat(1001, 1)
    units.fit(values * (1 + 1e-16 * torch.arange(1001, dtype=torch.float64)[:, None]))
    assert units.scale.tolist() == [1.0, 1.0, 1.0]
    units.fit(values.float())
    assert units.scale.tolist() == [1.0, 1.0, 1.0]
    units.fit(torch.tensor([[1e-30, 1.0, 5.0], [3e-30, 1.0 + 1e-5, 5.0]]))
    close(units.scale[:2] / torch.tensor([1e-30, 5e-6]), torch.ones(2), 0.03)  # float32 has 84 units in 1e-5


class Root(nn.Module):
    """An embedding without a number below -3 standard deviations."""

    def forward(self, x):
        return (x + 3).sqrt()


@pytest.mark.parametrize("row", [2, 7])
def test_rows_without_a_finite_density_are_named_before_training(row):
    """Held out (row 7) or not: a logit has no number at 1.5, a root none of negative numbers."""
    theta, x = torch.rand(50, 2), simulate(50)[1]
    x[row] = -100.0
    told = f"not so in 1 row, the first is row {row}"
    assert f"log-densities before training; {told}" in refused(theta, x, embedding=Root())
    theta[row, 1] = 1.5
    assert f"parameters under `unconstrained`; {told}" in refused(theta, x, unconstrained=Logit(0.0))


def test_an_epoch_of_no_number_is_never_the_best():
    held = Held(validation=[math.nan, -2.0, math.nan, -math.inf])
    assert (held.best, held.stale) == (-2.0, 2)
    assert (Held(validation=[math.nan, math.nan]).best, Held(validation=[math.nan]).stale) == (-math.inf, 1)
    assert (Held().best, Held().stale) == (-math.inf, 0)


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_fit_that_held_out_rows_never_liked_is_an_error(epochs, monkeypatch):
    monkeypatch.setattr(pairs, "mean_log_prob", lambda *_, **__: math.nan)
    with pytest.raises(TrainingDivergedError, match=f"any of {epochs} validation"):
        fit_posterior(*simulate(50), "nice", options={"hidden": 8, "depth": 1}, epochs=epochs)


def test_draws_that_have_no_rank_are_refused():
    theta, x = torch.zeros(3, 2), torch.zeros(3, 1)
    with pytest.raises(UsageError, match=r"shape \(9, 2\); \(9, 1\) came for row 0"):
        sbc_ranks(lambda n, seen: torch.zeros(n, 1), theta, x, draws=9)
    with pytest.raises(UsageError, match=r"\(8, 2\) came"):
        sbc_ranks(lambda n, seen: torch.zeros(n - 1, 2), theta, x, draws=9)
    for wrong in (math.nan, math.inf):
        spoiled = iter((torch.zeros(9, 2), torch.tensor([0.0, wrong]).expand(9, 2)))
        with pytest.raises(UsageError, match="finite draws; 9 of 9 are not for row 1"):
            sbc_ranks(lambda n, seen, spoiled=spoiled: next(spoiled), theta, x, draws=9)
    with pytest.raises(UsageError, match="finite parameters; not so in 1 row, the first is row 2"):
        sbc_ranks(exact_sample, theta.index_fill(0, torch.tensor([2]), math.nan), x)


def test_a_fit_follows_from_its_seed_and_leaves_the_generator_alone():
    theta, x = simulate(100)
    before = torch.get_rng_state()
    first, again, other = (
        fit_posterior(theta, x, options={"layers": 2, "hidden": 8}, epochs=2, seed=s).held.validation for s in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert first == again != other


def test_ranks_are_uniform_under_the_exact_posterior_and_under_no_other():
    theta, x = simulate(1000, seed=3)
    right = uniformity(sbc_ranks(exact_sample, theta, x), 99)
    assert bool((right > 1e-4).all())
    for wrong in ({"widen": 0.7}, {"widen": 1.5}, {"shift": 0.15}):
        ranks = sbc_ranks(lambda n, seen, wrong=wrong: exact_sample(n, seen, **wrong), theta, x)
        assert bool((uniformity(ranks, 99) < 1e-6).all())


def test_ranks_count_the_draws_below():
    draws = torch.tensor([[0.0, 5.0], [1.0, 6.0], [2.0, 7.0]])
    ranks = sbc_ranks(lambda n, x: draws, torch.tensor([[1.5, 4.0], [9.0, 6.5]]), torch.zeros(2, 1), draws=3)
    assert ranks.tolist() == [[2, 0], [3, 2]]
    assert sbc_ranks(exact_sample, torch.zeros(0, 2), torch.zeros(0, 3)).shape == (0, 2)


def test_the_p_value_is_that_of_pearson():
    from scipy.stats import chisquare

    ranks = torch.randint(0, 100, (400, 3))
    bins = torch.stack([torch.bincount(column // 10, minlength=10) for column in ranks.T], 1)
    close(uniformity(ranks, 99, bins=10), torch.from_numpy(chisquare(bins.numpy()).pvalue))


def test_the_learned_posterior_is_calibrated(learned):
    theta, x = simulate(200, seed=4)
    ranks = sbc_ranks(lambda n, seen: learned.sample(n, seen).samples, theta, x, draws=19)
    assert bool((uniformity(ranks, 19, bins=10) > 1e-4).all())


def refused(theta, x, **options):
    with pytest.raises(UsageError) as told:
        fit_posterior(theta, x, options.pop("model", "nice"), epochs=1, **options)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_mistakes_are_told():
    theta, x = simulate(50)
    assert "(50, 2) and (49, 3) came" in refused(theta, x[:49])
    assert "(50,) and" in refused(theta[:, 0], x)
    assert "and (50,) came" in refused(theta, x[:, 0])
    assert "at least 10 simulations; 0 came" in refused(theta[:0], x[:0])
    assert "observations; not so in 2 rows, the first is row 7" in refused(
        theta, x.index_fill(0, torch.tensor([7, 9]), math.nan)
    )
    assert "parameters; not so in 1 row, the first is row 3" in refused(
        theta.index_fill(0, torch.tensor([3]), math.inf), x
    )
    assert "in the support" in refused(theta, x, support=constraints.independent(constraints.positive, 1))
    assert "features of shape (B, k)" in refused(theta, x, embedding=nn.Unflatten(1, (1, 3)))
    assert "unknown model 'nise'; did you mean 'nice'" in refused(theta, x, model="nise")
    assert "context" in refused(theta, x, model="vae")
    assert "leaves 2 of 50 rows" in refused(theta, x, validation=0.98)
    nan = theta.index_fill(0, torch.tensor([3]), math.nan)
    assert "finite parameters" in refused(nan, x, support=constraints.independent(constraints.real, 1))
    assert "finite observations" in refused(theta, x.double() * 1e300)  # beyond float32
    assert "0 < validation < 1" in refused(theta, x, validation=1.0)
    with pytest.raises(UsageError, match="as many observations"):
        sbc_ranks(exact_sample, theta, x[:3])
    with pytest.raises(UsageError, match="divide 100 ranks"):
        uniformity(torch.zeros(500, 2), 99, bins=7)
    with pytest.raises(UsageError, match="at least 100 rows"):
        uniformity(torch.zeros(99, 2), 99)


def test_weights_count_rows_several_times():
    """A row of weight 3 is three rows; the gradient is that of the repeated rows."""
    flow = Flow(Coupling(Affine(), MLP(1, 2, hidden=8, depth=1)), StandardNormal((2,))).double()
    x, counts = torch.randn(6, 2, dtype=torch.float64), torch.tensor([0.0, 1.0, 3.0, 2.0, 1.0, 1.0]).double()
    ((_, weighted),) = WeightedLikelihood()(flow, x, weigh(counts))
    ((_, repeated),) = MaximumLikelihood()(flow, x.repeat_interleave(counts.long(), 0), None)
    close(weighted, repeated * counts.sum() / (len(counts) * counts.mean()))
    for a, b in zip(
        *(torch.autograd.grad(loss, list(flow.parameters())) for loss in (weighted, repeated)), strict=True
    ):
        close(a, b)


def test_weights_stand_before_the_context_of_the_model():
    flow = Flow(Coupling(Affine(), MLP(1, 2, hidden=8, depth=1, context=3)), StandardNormal((2,)), (3,))
    with torch.no_grad():
        for p in flow.parameters():
            p += 0.3 * torch.randn_like(p)
    x, context = torch.randn(6, 2), torch.randn(6, 3)
    ((_, plain),) = MaximumLikelihood()(flow, x, context)
    ((_, weighted),) = WeightedLikelihood()(flow, x, weigh(torch.full((6,), 9.0), context))
    close(weighted, plain, 1e-6)


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        (torch.tensor([1.0, -1.0]), "-1.0 in row 1"),
        (torch.tensor([math.nan, 1.0]), "nan in row 0"),
        (torch.zeros(2), "all are 0"),
        (torch.ones(2, 1), r"shape \(2, 1\)"),
        (torch.ones(3), "each of 2 rows; 3 came"),
    ],
)
def test_weights_that_are_none_are_refused(weights, told):
    with pytest.raises(UsageError, match=told):
        weigh(weights, torch.zeros(2, 1))
    with pytest.raises(UsageError, match="first feature of the context"):
        next(WeightedLikelihood()(nn.Identity(), torch.zeros(2, 1), None))

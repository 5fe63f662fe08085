"""NVAE against independent oracles: quadrature, torch.distributions, Monte Carlo, singular values; and by command."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from tolerances import SIGMAS, close

import longflow
from longflow.bijections import adapt, settle
from longflow.cli import main
from longflow.commands import scales
from longflow.commands.scales import redrawn
from longflow.distributions import Dequantised
from longflow.errors import UsageError
from longflow.models import CATALOGUE, assemble
from longflow.nets import BatchNorm2d
from longflow.nets.nvae import Group, Plan, top_singular_values
from longflow.objectives import ELBO, HierarchicalELBO

SMALL = {"maps": 6, "growth": 1, "latents": 2}
COLUMN = {"scales": 1, "halvings": 1, "groups": 2, "latents": 1, "maps": 4, "growth": 1}
"""Two groups of one number each, for pictures of 2×2 pixels."""

PICTURES = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)), dtype=torch.float64).reshape(16, 1, 2, 2)


def stirred(model, by=0.3):
    with torch.no_grad():
        for p in model.parameters():
            p += by * torch.randn_like(p)
    return model


def small(shape=(1, 8, 8), **options):
    return stirred(longflow.build("nvae", shape, **{**SMALL, **options}), 0.1).double().eval()


def column():
    """A model of 16 pictures with two numbers of latents, so that p(x) is an integral over the plane.

    Its posteriors are not far from its priors, and wider, so that importance weights have a variance.
    """
    model = stirred(longflow.build("nvae", (1, 2, 2), levels=2, likelihood="bernoulli", **COLUMN), 0.4)
    with torch.no_grad():
        for group in model.decoder.groups:
            group.residual.weight *= 0.1
            group.residual.bias.copy_(torch.tensor([0.3, 0.2]))
    return model.double().eval()


def integrated(model):
    """Return p(x) of the 16 pictures by a sum over a grid of ε, on which the decoder's means are Bernoulli's."""
    axis = torch.linspace(-8, 8, 161, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        mean = model.decode(z)
    weight = torch.exp(-0.5 * z.square().sum(1)) / (2 * math.pi) * 0.1**2
    chances = torch.where(PICTURES[:, None] > 0.5, mean, 1 - mean).flatten(2).prod(2)
    return chances @ weight


def test_importance_weights_are_unbiased_estimates_of_the_integral_over_the_latents():
    model = column()
    exact = integrated(model)
    assert exact.sum().item() == pytest.approx(1, abs=1e-9)
    assert exact.max() / exact.min() > 1.5
    with torch.no_grad():
        draws = [model.log_weight(PICTURES.repeat(500, 1, 1, 1)).exp().reshape(500, 16) for _ in range(12)]
    weights = torch.cat(draws)
    error = weights.std(0) / math.sqrt(len(weights))
    assert ((weights.mean(0) - exact).abs() < SIGMAS * error).all()
    assert (error < 0.03 * exact).all()


def test_bounds_rise_with_the_draws_towards_the_likelihood():
    model = column()
    exact = integrated(model).log().mean().item()
    rows = PICTURES.repeat(40, 1, 1, 1)
    with torch.no_grad():
        bounds = [model.bound(rows, samples=k).mean().item() for k in (1, 4, 16, 100)]
    assert bounds == sorted(bounds)
    assert bounds[0] < exact - 0.02
    assert bounds[-1] == pytest.approx(exact, abs=0.02)


def test_bits_of_a_sampled_model_are_those_of_the_integral():
    """How often each picture is drawn is its probability: sampling and inference are of one model."""
    model = column()
    n = 40000
    with torch.no_grad():
        drawn = model.sample(n).flatten(1).long() @ torch.tensor([8, 4, 2, 1])
    share = torch.bincount(drawn, minlength=16) / n
    exact = integrated(model)
    assert ((share - exact).abs() < SIGMAS * (exact * (1 - exact) / n).sqrt()).all()


def test_divergence_of_each_group_is_that_of_the_normals_and_of_draws():
    model = small()
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        steps, _ = model.infer(x)
        torch.manual_seed(5)
        kl = model.parts(x)["kl"]
        torch.manual_seed(5)
        again, _ = model.infer(x)
    assert kl.shape == (3, 4)
    close(kl, torch.stack([step.divergence for step in again], 1))
    for step in steps:
        q, p = (torch.distributions.Normal(loc, scale.exp()) for loc, scale in (step.posterior, step.prior))
        close(step.divergence, torch.distributions.kl_divergence(q, p).flatten(1).sum(1))
        close(step.log_ratio, (q.log_prob(step.z) - p.log_prob(step.z)).flatten(1).sum(1))
        z = q.sample((20000,))
        ratio = (q.log_prob(z) - p.log_prob(z)).flatten(2).sum(2)
        assert ((ratio.mean(0) - step.divergence).abs() < SIGMAS * ratio.std(0) / math.sqrt(len(z))).all()
        close(step.noise, (step.z - p.mean) / p.stddev)


def test_the_first_prior_is_standard_and_a_residual_of_nought_is_the_prior():
    model = small()
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    first = model.infer(x)[0][0]
    close(first.prior[0], torch.zeros_like(first.z))
    close(first.prior[1], torch.zeros_like(first.z))
    for group in model.decoder.groups:
        torch.nn.init.zeros_(group.residual.weight)
        torch.nn.init.zeros_(group.residual.bias)
    torch.manual_seed(1)
    drawn = model.draw(x)
    close(drawn.divergence, torch.zeros(3, 4, dtype=torch.float64))
    torch.manual_seed(1)
    close(model.log_weight(x), drawn.reconstruction)


def test_means_and_deviations_stay_within_the_soft_clamp():
    model = stirred(small(), 3.0)
    with torch.no_grad():
        steps, _ = model.infer(100 * torch.randn(4, 1, 8, 8, dtype=torch.float64))
    for loc, log_scale in (moments for step in steps for moments in (step.prior, step.posterior)):
        assert loc.abs().max() <= 5
        assert log_scale.exp().min() > 0.01
        assert log_scale.max() <= 5
    assert all(step.divergence.isfinite().all() for step in steps)


def ancestors(model, noise):
    """Draw z_1, then each z_l given those above it, by torch.distributions' own terms; return them and their chance."""
    h = model.decoder.start.expand(len(noise), -1, -1, -1)
    log_p, parts = 0.0, []
    for group, own in zip(model.decoder.groups, noise.split(model.decoder.sizes, 1), strict=True):
        h = group.before(h)
        if parts:
            a, b = group.prior(h).chunk(2, 1)
            prior = torch.distributions.Normal(5 * torch.tanh(a / 5), 0.01 + 0.99 * (5 * torch.tanh(b / 5)).exp())
        else:
            like = torch.zeros(len(noise), model.decoder.latent_shapes[0][0], *h.shape[2:], dtype=h.dtype)
            prior = torch.distributions.Normal(like, like + 1)
        z = prior.icdf(torch.special.ndtr(own).reshape(prior.mean.shape))
        parts.append(z)
        log_p = log_p + (prior.log_prob(z) + prior.stddev.log()).flatten(1).sum(1)
        h = group.joined(torch.cat((h, z), 1))
    return parts, log_p, model.decoder.last(h)


def test_decoded_noise_is_an_ancestral_sample(joined):
    model = small(likelihood="bernoulli")
    noise = model.base.sample(5).clamp(-5, 5)
    with torch.no_grad():
        parts, log_p, logits = ancestors(model, noise)
        mean = model.decode(noise)
    close(mean, torch.sigmoid(logits), 1e-7)
    close(model.base.log_prob(noise), log_p, 1e-6)
    for z, own in zip(parts, joined, strict=True):
        close(z, own, 1e-7)


def test_samples_are_draws_about_the_decoded_noise():
    model = small(likelihood="bernoulli")
    torch.manual_seed(3)
    drawn = model.sample(6, temperature=0.0)
    with torch.no_grad():
        mean = model.decode(torch.zeros(6, *model.latent_shape, dtype=torch.float64))
    assert torch.equal(drawn, (mean > 0.5).double())


@pytest.fixture
def joined(monkeypatch):
    """The latents of each group, in the order in which they join the tower."""
    found = []

    def join(self, h, z):
        found.append(z)
        return self.joined(torch.cat((h, z), 1))

    monkeypatch.setattr(Group, "join", join)
    return found


def test_encoded_noise_decodes_through_the_means_of_the_posteriors(joined):
    model = small()
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        steps, parameters = model.infer(x, 0.0)
        z = model.encode(x)
        seen = list(joined)
        assert z.shape == (3, *model.latent_shape)
        joined.clear()
        close(model.decode(z), model.observation.mean(parameters))
    for step, own, decoded in zip(steps, seen, joined, strict=False):
        close(step.z, step.posterior[0])
        close(step.z, own)
        close(step.z, decoded)


def test_redrawing_the_fine_scale_keeps_the_coarse_groups(joined):
    model = small(groups=2, latents=3)
    x = torch.randn(4, 1, 8, 8).numpy()
    model.float()
    with torch.no_grad():
        model.decode(model.encode(torch.from_numpy(x)))
    kept = [z.clone() for z in joined[4:]]
    joined.clear()
    anew = redrawn(model, x, (0,), 1.0, 2, seed=0)
    assert anew.shape == (4, 2, 1, 8, 8)
    for draw in (joined[4:8], joined[8:12]):
        for group in (0, 1):
            close(draw[group], kept[group], 1e-5)
        for group in (2, 3):
            assert (draw[group] - kept[group]).abs().max() > 0.1
    assert np.abs(anew[:, 0] - anew[:, 1]).max() > 1e-4


def test_scales_are_a_partition_the_finest_first():
    model = small(groups=2, latents=3, halvings=1)
    z = torch.arange(2.0 * sum(model.decoder.sizes)).reshape(2, -1)
    fine, coarse = model.scales(z)
    assert fine.shape == (2, 6, 4, 4)
    assert coarse.shape == (2, 6, 2, 2)
    assert sorted(torch.cat((fine.flatten(), coarse.flatten())).tolist()) == z.flatten().tolist()
    assert model.scale_count == 2
    assert model.scale_map().tolist() == [1] * 24 + [0] * 96


def test_a_temperature_for_each_scale_stills_that_scale():
    model = small(likelihood="bernoulli")
    temperature = torch.tensor([0.0, 2.0], dtype=torch.float64)[model.scale_map()]
    torch.manual_seed(3)
    noise = 2 * torch.randn(4, *model.latent_shape, dtype=torch.float64) * (model.scale_map() == 1)
    drawn = model.observation.sample(4, model.condition(noise))
    torch.manual_seed(3)
    close(model.sample(4, temperature=temperature), drawn)
    with pytest.raises(UsageError, match="temperatures"):
        model.sample(2, temperature=torch.ones(3))


PLAN = Plan(maps=5, growth=2, groups=(1, 1), latents=1, halvings=1, cells=1, outer_cells=1, norm="act")


def test_cells_add_a_tenth_to_their_skips():
    x = torch.randn(3, 5, 4, 4, dtype=torch.float64)
    for cell in (PLAN.encoder_cell(5), PLAN.decoder_cell(5, 6)):
        cell = stirred(cell).double()
        close(cell(x), x + cell.body(x) / 10)
        excite = cell.body[-1]
        before = cell.body[:-1](x)
        gates = torch.sigmoid(excite.layers[2](torch.relu(excite.layers[0](before.mean((2, 3))))))
        close(cell.body(x), before * gates[:, :, None, None])


def test_doubling_late_is_doubling_first():
    cell = stirred(PLAN.doubling(0, 3)).double()
    x = torch.randn(3, 10, 4, 4, dtype=torch.float64)
    doubled = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    body = torch.nn.Sequential(*(layer for layer in cell.body if not isinstance(layer, torch.nn.Upsample)))
    close(cell(x), cell.skip[0](doubled) + body(doubled) / 10)
    assert cell(x).shape == (3, 5, 8, 8)
    assert PLAN.halving(0)(cell(x).float().detach()).shape == (3, 10, 4, 4)


def test_groups_of_each_scale_are_those_asked_for():
    model = longflow.build("nvae", (1, 16, 16), scales=3, groups=5, group_divisor=2, latents=1, maps=4, growth=2)
    shapes = [(1, 2, 2)] + [(1, 4, 4)] * 2 + [(1, 8, 8)] * 5
    assert model.decoder.latent_shapes == shapes
    close(model.alpha, torch.tensor([1.0] + [4 / 2] * 2 + [16 / 5] * 5))
    assert model.encoder[1].groups[-1][0].skip.weight.shape[0] == 4 * 2**3


def test_the_preset_of_mnist_has_the_sizes_of_the_papers_table():
    """28×28 digits in 32×32, 15 groups of 20 maps: 5 of 4×4 and 10 of 8×8."""
    with torch.device("meta"):
        model = longflow.build("nvae", (1, 28, 28), levels=2, preset="mnist")
    assert model.decoder.latent_shapes == [(20, 4, 4)] * 5 + [(20, 8, 8)] * 10
    assert model.decoder.start.shape == (1, 256, 4, 4)
    assert any(isinstance(m, BatchNorm2d) for m in model.modules())


@pytest.mark.parametrize("shape", [(1, 5, 6), (3, 4, 7), (2, 8, 8)])
def test_pictures_of_any_sides_are_framed_and_cut(shape):
    model = small(shape)
    x = torch.randn(2, *shape, dtype=torch.float64)
    seen = []
    model.encoder[1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    back = model.decode(model.encode(x))
    assert back.shape == x.shape
    tall, wide = seen[0].shape[2:]
    assert tall % 4 == wide % 4 == 0
    top, left = (tall - shape[1]) // 2, (wide - shape[2]) // 2
    close(seen[0][:, :, top : top + shape[1], left : left + shape[2]], x)
    assert seen[0].abs().sum() == pytest.approx(x.abs().sum().item())


LIKELIHOODS = [("normal", None), ("normal-varying", None), ("bernoulli", 2), ("categorical", 5), ("logistic", 5)]


@pytest.mark.parametrize(("likelihood", "levels"), [*LIKELIHOODS, ("grey", 5)])
def test_every_likelihood_is_scored_and_drawn(likelihood, levels):
    model = small((2, 4, 4), levels=levels, likelihood=likelihood)
    x = torch.randint(levels or 2, (3, 2, 4, 4)).double()
    nats = model.log_prob(x)
    assert nats.shape == (3,)
    assert nats.isfinite().all()
    assert model.likelihood == ("none" if likelihood == "grey" else "lower bound")
    assert model.sample(2).shape == model.decode(model.base.sample(2)).shape == (2, 2, 4, 4)
    if levels and likelihood != "grey":
        drawn = model.sample(4)
        assert torch.equal(drawn, drawn.round().clamp(0, levels - 1))


def test_spectral_norms_are_the_singular_values_and_have_their_gradient():
    model = small(groups=1)
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    exact = [torch.linalg.svdvals(m.weight.flatten(1)).max() for m in convolutions]
    found = top_singular_values(model)
    close(found.sort().values, torch.stack(exact).sort().values)
    weights = [m.weight for m in convolutions]
    ours = torch.autograd.grad(model.penalties()["spectral"], weights)
    for a, b in zip(ours, torch.autograd.grad(sum(exact), weights), strict=True):
        close(a, b, 1e-7)


def test_the_regulariser_of_gains_is_the_largest_scale_of_each_batch_normalisation():
    model = small(norm="batch")
    layers = [m for m in model.modules() if isinstance(m, BatchNorm2d)]
    assert len(layers) > 10
    expected = sum(max(abs(v) for v in m.scale.tolist()) for m in layers)
    assert model.penalties()["gain"].item() == pytest.approx(expected)
    assert small().penalties()["gain"].item() == 0


def loss_of(objective, model, x, done=1.0):
    torch.manual_seed(7)
    [(part, loss)] = objective(model, x, None, done)
    assert part == ""
    return loss


def parts_of(model, x):
    torch.manual_seed(7)
    parts = model.parts(x)
    return parts["reconstruction"].mean(), parts["kl"].mean(0)


def test_kl_is_balanced_while_its_weight_rises():
    model = small()
    x = torch.randn(5, 1, 8, 8, dtype=torch.float64)
    reconstruction, kl = parts_of(model, x)
    bits = 64 * math.log(2)
    alpha = [1 / 2, 1 / 2, 4 / 2, 4 / 2]
    shares = [(own + 0.01) / a for own, a in zip(kl.tolist(), alpha, strict=True)]
    balanced = sum(4 * s / sum(shares) * own for s, own in zip(shares, kl.tolist(), strict=True))
    objective = HierarchicalELBO(kl_warmup=0.5)
    close(loss_of(objective, model, x, 0.125), (0.25 * balanced - reconstruction) / bits)
    plain = (kl.sum() - reconstruction) / bits
    for done in (0.5, 0.7, 1.0):
        close(loss_of(objective, model, x, done), plain)
    close(
        loss_of(HierarchicalELBO(kl_warmup=0.5, balancing=False), model, x, 0.125),
        loss_of(ELBO(kl_warmup=0.5), model, x, 0.125),
    )
    assert abs(balanced - kl.sum().item()) > 0.01


def test_balancing_has_no_gradient_of_its_own():
    model = small()
    x = torch.randn(5, 1, 8, 8, dtype=torch.float64)
    reconstruction, kl = parts_of(model, x)
    gamma = (kl.detach() + 0.01) / model.alpha
    target = 0.5 * (gamma / gamma.mean() * kl).sum() - reconstruction
    weights = list(model.parameters())
    ours = torch.autograd.grad(loss_of(HierarchicalELBO(kl_warmup=1.0), model, x, 0.5), weights)
    for a, b in zip(ours, torch.autograd.grad(target / (64 * math.log(2)), weights), strict=True):
        close(a, b)


def test_the_regulariser_is_in_nats_and_sees_the_model_within_dequantisation():
    config = {"model": "nvae", "options": CATALOGUE["nvae"].resolve(None, {**SMALL, "norm": "batch"}), "levels": 17}
    model = assemble({**config, "shape": [1, 8, 8], "preprocess": "unit"}).double().eval()
    assert isinstance(model, Dequantised)
    x = torch.randint(17, (6, 1, 8, 8)).double()
    plain = loss_of(HierarchicalELBO(), model, x, 0.1)
    regular = loss_of(HierarchicalELBO(regularisation=0.03), model, x, 0.1)
    expected = 0.03 * sum(model.density.penalties().values()) / (64 * math.log(2))
    close(regular - plain, expected)
    with pytest.raises(UsageError, match="regularisation >= 0"):
        HierarchicalELBO(regularisation=-1.0)


def test_settled_statistics_are_those_of_the_posteriors_under_the_present_weights():
    """With the same noise for the latents, evaluation after settling is what training made of the batch."""
    model = small(levels=2, likelihood="bernoulli", norm="batch")
    x = (torch.randn(256, 1, 8, 8).cumsum(3) > 0).double()

    def scored():
        torch.manual_seed(5)
        return model.log_prob(x)

    with torch.no_grad():
        unsettled = scored()
        model.train()
        trained = scored()
        torch.manual_seed(5)
        settle(model, x)
        model.eval()
        close(scored(), trained, 1e-6)
        assert (unsettled - trained).abs().max() > 1
        close(model.encode(x[:3]), model.encode(x)[:3])


def test_learns():
    torch.manual_seed(0)
    model = longflow.build("nvae", (1, 4, 4), levels=2, likelihood="bernoulli", **SMALL)
    x = (torch.randn(64, 1, 1, 1) + 0.5 * torch.randn(64, 1, 4, 4) > 0).float()
    adapt(model, x)
    start = model.log_prob(x).mean().item()
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    for step in range(50):
        optimiser.zero_grad()
        [(_, loss)] = HierarchicalELBO()(model, x, None, step / 50)
        loss.backward()
        optimiser.step()
    assert model.log_prob(x).mean().item() > start + 2
    assert model.parts(x)["kl"].mean(0).max() > 0.3


def test_saves_and_loads_the_same_model(tmp_path):
    model = stirred(longflow.build("nvae", (1, 8, 8), levels=2, likelihood="bernoulli", norm="batch", **SMALL)).eval()
    x = torch.randint(2, (4, 1, 8, 8)).float()
    settle(model, torch.randint(2, (64, 1, 8, 8)).float())
    model.save(tmp_path / "model")
    back = longflow.load(tmp_path / "model")
    assert torch.equal(back.encode(x), model.encode(x))
    torch.manual_seed(3)
    drawn = model.sample(2)
    torch.manual_seed(3)
    assert torch.equal(back.sample(2), drawn)
    assert torch.equal(back.alpha, model.alpha)


@pytest.mark.parametrize(
    ("shape", "options", "says"),
    [
        ((8,), {}, "expects pictures"),
        ((1, 3, 8), {}, r"at least 2\^\(halvings \+ scales - 1\) = 4"),
        ((1, 8, 8), {"scales": 4, "halvings": 1}, "= 16"),
        ((1, 8, 8), {"norm": "bath"}, "did you mean 'batch'"),
        ((1, 8, 8), {"groups": 0}, "groups >= 1"),
        ((1, 8, 8), {"halvings": -1}, "halvings >= 0"),
        ((1, 8, 8), {"likelihood": "logistic"}, "expects data with levels"),
        ((1, 8, 8), {"levels": 17, "likelihood": "bernoulli"}, "expects 2 levels"),
    ],
)
def test_bad_options_are_told(shape, options, says):
    with pytest.raises(UsageError, match=says):
        longflow.build("nvae", shape, **options)
    model = small(likelihood="bernoulli")
    with pytest.raises(UsageError, match="expected events of shape"):
        model.decode(torch.zeros(2, 3, dtype=torch.float64))


def test_maps_of_a_framed_picture_are_cut_at_its_centre(monkeypatch):
    shown = []
    monkeypatch.setattr(scales.figures, "strips", lambda strips, **how: shown.append(strips) or b"")
    z2 = torch.arange(16.0).reshape(1, 4, 4) / 15 * 3
    scales.energy_strips(np.zeros((1, 1, 6, 6), np.uint8), [z2], levels=2)
    whole = np.arange(16).reshape(4, 4).repeat(2, 0).repeat(2, 1) * 17
    np.testing.assert_allclose(shown[0][1, 0, 0], whole[1:7, 1:7], atol=1e-3)


def test_trained_by_command_every_command_of_latents_takes_it(tmp_path, capsys):
    run = str(tmp_path / "run")
    flags = ["--levels", "2", "--likelihood", "bernoulli", "--maps", "4", "--growth", "1", "--threads", "1"]
    aims = ["--regularisation", "0.01", "--norm", "batch", "--no-balancing"]
    assert main(["train", "nvae", "--out", run, "--steps", "30", *flags, *aims]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["objective"]["regularisation"] == 0.01
    assert config["objective"]["balancing"] is False
    for command in (
        ["sample", run, "-n", "4", "--scale-temperature", "0.5", "1"],
        ["resample", run, "--scales", "0", "-n", "2", "--draws", "2"],
        ["interpolate", run, "--pairs", "2", "--points", "3"],
        ["reconstruct", run, "-n", "3"],
        ["latents", run, "-n", "3"],
    ):
        assert main(command) == 0
    capsys.readouterr()
    assert main(["evaluate", run, "-n", "50", "--importance-samples", "4", "--json"]) == 0
    scored = json.loads(capsys.readouterr().out)
    assert scored["likelihood"] == "lower bound"
    assert scored["dequantiser"] is None
    assert 0 < scored["bits_per_dim"] < 1.3
    assert scored["parts"].keys() >= {"reconstruction", "kl"}
    assert main(["train", "nvae", "--out", run, "--steps", "40", "--resume"]) == 0

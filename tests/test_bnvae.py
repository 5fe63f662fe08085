"""Batch normalisation of codes: the bounds and the moments that it promises, and where its statistics come from."""

import math

import numpy as np
import pytest
import torch
from tolerances import close

import longflow
from longflow.adaptive import has_statistics, settle
from longflow.commands.configure import Settings
from longflow.commands.evaluate import evaluate
from longflow.commands.train import train_run
from longflow.errors import UsageError
from longflow.nets.code_norm import LEAST_VARIANCE, MeanNorm, MomentNorm
from longflow.training import Recipe

LAYERS = {"mean": lambda: MeanNorm(3, 0.7), "both": lambda: MomentNorm(3, 0.4)}


def stirred(layer):
    """A layer whose learned numbers are not those of the start, in float64."""
    for p in layer.parameters():
        torch.nn.init.normal_(p)
    return layer.double()


def moments(layer, x):
    """Means and deviations, (B, 3) each, of codes."""
    loc, log_scale = layer(x).chunk(2, 1)
    return loc, log_scale.exp()


def said(rows=50):
    """What an encoder might say, with features of different size and place, in float64."""
    return torch.randn(rows, 6, dtype=torch.float64) * torch.arange(1, 7) + torch.arange(6)


def test_the_papers_bound_of_kl_holds_whatever_the_encoder_says():
    """Mean KL >= d (γ² + β²)/2, summed over numbers, even where each σ is what minimises KL."""
    layer = stirred(MeanNorm(3, 0.7))
    bound = 0.5 * (0.7**2 + layer.beta.square())
    for scale in (None, 0.0):
        x = said()
        if scale is not None:
            x[:, 3:] = scale
        loc, sigma = moments(layer, x)
        kl = (0.5 * (loc.square() + sigma.square() - 1) - sigma.log()).mean(0)
        assert (kl >= bound - 1e-6).all()
        close(loc.mean(0), layer.beta.detach(), 1e-6)
        close(loc.std(0, correction=0), torch.full((3,), 0.7, dtype=torch.float64), 1e-6)
    close(kl, bound.detach(), 1e-6)


def test_the_essays_moments_are_those_of_the_prior():
    """Of the codes of a batch together: mean 0, variance 1; and KL at least τ/2 a number."""
    layer = stirred(MomentNorm(3, 0.4))
    loc, sigma = moments(layer, said())
    close(loc.mean(0), torch.zeros(3, dtype=torch.float64), 1e-9)
    close((loc.square() + sigma.square()).mean(0), torch.ones(3, dtype=torch.float64), 2 * LEAST_VARIANCE)
    assert (loc.square().mean(0) >= 0.4).all()
    kl = (0.5 * (loc.square() + sigma.square() - 1) - sigma.log()).mean(0)
    assert (kl >= 0.2).all()
    # The share of the variance that is the mean's is what θ says.
    share = 0.4 + 0.6 * torch.sigmoid(layer.theta)
    close(loc.square().mean(0), share.detach(), 1e-6)


def test_drawn_codes_have_the_moments_too():
    layer = stirred(MomentNorm(3, 0.4))
    loc, sigma = moments(layer, said(400))
    z = loc + sigma * torch.randn(200, *loc.shape, dtype=torch.float64)
    z = z.flatten(0, 1).detach()
    close(z.mean(0), torch.zeros(3, dtype=torch.float64), 0.02)
    close(z.var(0), torch.ones(3, dtype=torch.float64), 0.03)


def test_a_deviation_of_zero_has_a_logarithm():
    layer = MomentNorm(1, 0.5).double()
    x = torch.tensor([[0.0, -1.0], [1.0, 0.0], [2.0, 1.0]], dtype=torch.float64)
    log_scale = layer(x)[:, 1]
    assert log_scale.isfinite().all()
    assert log_scale[1].item() == pytest.approx(0.5 * math.log(LEAST_VARIANCE))


@pytest.mark.parametrize("kind", LAYERS)
def test_evaluation_sees_rows_alone_and_the_settled_statistics(kind):
    layer = stirred(LAYERS[kind]())
    x = said()
    in_training = layer(x)
    layer.adapt(x)
    layer.eval()
    close(layer(x), in_training, 1e-9)
    close(layer(x[:1]), layer(x)[:1])
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.train()
    layer(said())
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_are_those_of_the_batchs_own_statistics(kind):
    layer = stirred(LAYERS[kind]())
    assert torch.autograd.gradcheck(layer, said(4).requires_grad_())


@pytest.mark.parametrize("normalised", ["mean", "both"])
def test_a_run_settles_saves_and_scores(normalised, tmp_path):
    settings = Settings(data="digits", out=str(tmp_path / "r"), steps=60, device="cpu", threads=1)
    options = {"normalised": normalised, "latent": 4, "width": 16}
    run = train_run("bnvae", settings, Recipe(batch=50), options)
    model = longflow.load(run.path)
    assert has_statistics(model)
    found = evaluate(str(run.path), device="cpu")
    assert found["likelihood"] == "lower bound"
    assert np.isfinite(found["nats"])
    layer = next(m for m in model.modules() if isinstance(m, (MeanNorm, MomentNorm)))
    assert (layer.variance != 1).all()


def test_the_bound_holds_for_a_whole_model_in_training_and_once_settled():
    model = longflow.build("bnvae", (5,), gamma=0.6, latent=3, width=8).double()
    x = torch.randn(200, 5, dtype=torch.float64)
    least = 3 * 0.6**2 / 2
    assert model.parts(x)["kl"].sum(1).mean() >= least - 1e-6
    settle(model, x)
    assert model.eval().parts(x)["kl"].sum(1).mean() >= least - 1e-6
    loc, _ = model.code(x)
    close(loc.std(0, correction=0), torch.full((3,), 0.6, dtype=torch.float64), 1e-6)


def test_one_row_is_no_batch(tmp_path):
    settings = Settings(data="digits", out=str(tmp_path / "r"), steps=2, device="cpu", threads=1)
    with pytest.raises(UsageError, match="at least 2 rows"):
        train_run("bnvae", settings, Recipe(batch=1), {"latent": 2, "width": 4})
    for normalised in ("mean", "both"):
        model = longflow.build("bnvae", (4,), normalised=normalised)
        with pytest.raises(UsageError, match="at least 2 rows; 1 came"):
            model.train().log_prob(torch.rand(1, 4))
        assert model.eval().log_prob(torch.rand(1, 4)).shape == (1,)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"gamma": 0.0}, "gamma > 0"),
        ({"gamma": math.nan}, "gamma > 0"),
        ({"normalised": "both", "tau": 1.0}, "tau < 1"),
        ({"normalised": "both", "tau": -0.1}, "tau < 1"),
        ({"normalised": "bothh"}, "did you mean 'both'"),
        ({"latent": 0}, "latent >= 1"),
    ],
)
def test_bad_input_is_told(options, says):
    with pytest.raises(UsageError, match=says):
        longflow.build("bnvae", (4,), **options)

"""`diagnose`, for each kind of codes and of priors, against other draws of the same models."""

import numpy as np
import pytest
import torch
from doors import answer, refused
from tolerances import SIGMAS
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import longflow
from longflow.cli import main
from longflow.commands.diagnose import measured
from longflow.seeds import fixed_draws

DRAWS = 40
SMALL = {
    "mixture": ["vae", {"latent": 3, "width": 8, "prior": "mixture"}],
    "vamp": ["vae", {"latent": 3, "width": 8, "prior": "vamp"}],
    "flow": ["vae", {"latent": 3, "width": 8, "prior": "flow"}],
    "mixed": ["vae", {"latent": 3, "width": 8, "posterior": "mixture"}],
    "fvae": ["fvae", {"layers": 1, "depth": 1, "width": 8, "maps": 8}],
    "clusters": ["clustervae", {"latent": 3, "width": 8, "units": 8, "clusters": 4}],
    "classes": ["cvae", {"latent": 3, "width": 8, "classes": 5}],
}


def small(name):
    """Return a model of four numbers with every parameter stirred, and 30 events."""
    torch.manual_seed(0)
    kind, options = SMALL[name]
    model = longflow.build(kind, (4,), **options).eval()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.2 * torch.randn_like(p)
    return model, torch.rand(30, 4)


def diagnosed(model, x, draws=DRAWS):
    with torch.inference_mode():
        return measured(model, x.numpy(), draws, 0)


def agrees(found, error, drawn):
    """Assert that an estimate is the mean of other draws, (draws, N), within the errors of both."""
    own = np.sqrt(drawn.var(0).sum().item() / len(drawn)) / drawn.shape[1]
    assert error > 0
    assert abs(found - drawn.mean().item()) < SIGMAS * np.hypot(error, own)


def mixture_of(prior):
    """Return a prior of classes or clusters without a label, as one of torch's."""
    loc, log_scale = prior.normal_moments(torch.arange(prior.classes))
    normals = Independent(Normal(loc, log_scale.exp().expand_as(loc)), 1)
    return MixtureSameFamily(Categorical(logits=torch.zeros(len(loc))), normals)


@pytest.mark.parametrize(("name", "classes"), [("clusters", 4), ("classes", 5)])
def test_without_labels_the_prior_is_the_mixture_of_its_normals(name, classes):
    model, x = small(name)
    with fixed_draws(1), torch.inference_mode():
        for p in model.prior.parameters():
            p *= 15  # So far from N(0, I) that it could not be taken for it.
        loc, log_scale = model.code(x)
        q, prior = Independent(Normal(loc.double(), log_scale.double().exp()), 1), mixture_of(model.prior)
        z = q.sample((DRAWS,))
        drawn = q.log_prob(z) - prior.log_prob(z)
    found = diagnosed(model, x)
    agrees(found["kl"], found["stderr_kl"], drawn)
    assert found["prior_classes"] == classes


def log_ratio(model, x):
    """Return log q(z | x) - log p(z) of one draw of each row, (N,)."""
    z, log_q = model.posterior.sample_and_log_prob(len(x), model.first(x)[0])
    return log_q - model.prior.log_prob(z)


@pytest.mark.parametrize("name", ["mixture", "vamp", "flow", "mixed", "fvae"])
def test_kl_is_that_of_other_draws(name):
    model, x = small(name)
    with fixed_draws(1), torch.inference_mode():
        drawn = torch.stack([log_ratio(model, x) for _ in range(DRAWS)]).double()
    found = diagnosed(model, x)
    agrees(found["kl"], found["stderr_kl"], drawn)
    assert ("mutual_information" in found) == (name != "mixed")
    assert "kl_of_groups" not in found


def test_kl_of_a_hierarchy_is_that_of_its_importance_weights():
    """Σ_l E KL(q(z_l | z_<l, x) ‖ p(z_l | z_<l)) is E log q(z | x) / p(z)."""
    torch.manual_seed(0)
    model = longflow.build("nvae", (1, 4, 4), levels=2, likelihood="bernoulli", maps=4, growth=1, latents=1).eval()
    x = torch.randint(2, (30, 1, 4, 4)).float()
    with fixed_draws(1), torch.inference_mode():
        steps = [model.infer(model.first(x)[0])[0] for _ in range(DRAWS)]
        drawn = torch.stack([sum(step.log_ratio for step in one) for one in steps]).double()
    found = diagnosed(model, x)
    agrees(found["kl"], found["stderr_kl"], drawn)
    assert found["kl"] == pytest.approx(sum(found["kl_of_groups"]))


# Through the doors

MADE = {
    "mixture": ["vae", "--latent", "3", "--width", "8", "--prior", "mixture"],
    "clusters": ["clustervae", "--latent", "3", "--width", "8", "--units", "8", "--clusters", "4"],
    "nvae": ["nvae", "--levels", "2", "--likelihood", "bernoulli", "--maps", "4", "--growth", "1"],
    "nice": ["nice", "--data", "two-moons", "--hidden", "8"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diagnosed")
    for name, given in MADE.items():
        assert main(["train", *given, "--steps", "3", "--threads", "1", "--out", str(folder / name)]) == 0
    return folder


def told(capsys, *arguments):
    capsys.readouterr()
    assert main(["diagnose", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_what_is_drawn_adds_up(runs, capsys):
    found = answer(capsys, "diagnose", runs / "mixture", "-n", 100)
    assert found["kl"] == pytest.approx(found["mutual_information"] + found["gap"], abs=1e-9)
    assert min(found["stderr_kl"], found["stderr"], found["stderr_gap"]) > 0
    assert found["active_units"] <= found["dims"] == 3
    assert found["kl_of_dims"] is found["kl_of_groups"] is found["prior_classes"] is None
    assert answer(capsys, "diagnose", runs / "mixture", "-n", 100) == found
    assert answer(capsys, "diagnose", runs / "mixture", "-n", 100, "--seed", 1)["kl"] != found["kl"]
    lines = told(capsys, runs / "mixture", "-n", 100)
    assert "from 4 draws of each code)" in lines
    assert "KL by" not in lines


def test_clusters_are_told_to_be_a_mixture(runs, capsys):
    assert answer(capsys, "diagnose", runs / "clusters", "-n", 50)["prior_classes"] == 4
    assert "draws of each code; p(z) without labels, the mixture of 4)" in told(capsys, runs / "clusters", "-n", 50)


def test_a_hierarchy_has_kl_of_its_groups_alone(runs, capsys):
    found = answer(capsys, "diagnose", runs / "nvae", "-n", 50)
    assert len(found["kl_of_groups"]) == 4
    assert found["used_groups"] == sum(kl > 0.01 for kl in found["kl_of_groups"])
    for name in ("mutual_information", "stderr", "gap", "stderr_gap", "active_units", "kl_of_dims"):
        assert found[name] is None
    lines = told(capsys, runs / "nvae", "-n", 50)
    assert "not estimated: q(z | x) is not normal" in lines
    assert "KL by group" in lines


def test_what_has_no_codes_and_too_few_draws_are_refused(runs, capsys):
    assert "holds a nice" in refused(capsys, "diagnose", runs / "nice")
    assert "--draws >= 2" in refused(capsys, "diagnose", runs / "nvae", "--draws", 1)
    assert "-n >= 2" in refused(capsys, "diagnose", runs / "nvae", "-n", 1)
    assert "a seed of 0 to" in refused(capsys, "diagnose", runs / "mixture", "--seed", -1)

"""`diagnose`, for each kind of codes and of priors, against other draws of the same models."""

import numpy as np
import pytest
import torch
from doors import answer, refused
from tolerances import SIGMAS
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

import longflow
from longflow.cli import main
from longflow.commands.datasets import dataset_of
from longflow.runs import Run
from longflow.seeds import fixed_draws

DRAWS = 40
MADE = {
    "vib": ["vib", "--preset", "digits"],
    "infomax": ["infomax", "--preset", "digits"],
    "mixture": ["vae", "--latent", "3", "--width", "8", "--prior", "mixture"],
    "mixed": ["vae", "--latent", "3", "--width", "8", "--posterior", "mixture"],
    "clusters": ["clustervae", "--latent", "3", "--width", "8", "--units", "8", "--clusters", "4"],
    "classes": ["cvae", "--latent", "3", "--width", "8"],
    "nvae": ["nvae", "--levels", "2", "--likelihood", "bernoulli", "--maps", "4", "--growth", "1"],
    "flow": ["nice", "--data", "two-moons", "--hidden", "8"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diagnosed")
    for name, given in MADE.items():
        assert main(["train", *given, "--steps", "3", "--threads", "1", "--out", str(folder / name)]) == 0
    return folder


def opened(run):
    """Return the model of a run, and its test events as the density inside sees them."""
    model = longflow.load(run)
    return model, model.middle(torch.as_tensor(dataset_of(Run.open(run)).split("test")).float())


def agrees(found, error, drawn):
    """Assert that an estimate is the mean of other draws, (draws, N), within the errors of both."""
    own = np.sqrt(drawn.var(0).sum().item() / len(drawn)) / drawn.shape[1]
    assert error > 0
    assert abs(found - drawn.mean().item()) < SIGMAS * np.hypot(error, own)


@pytest.mark.parametrize(("name", "term"), [("vib", "rate"), ("infomax", "kl")])
def test_representations_have_all_of_it(runs, capsys, name, term):
    found = answer(capsys, "diagnose", runs / name)
    assert found["kl"] == pytest.approx(answer(capsys, "evaluate", runs / name)["terms"][term], rel=1e-5)
    assert found["kl"] == pytest.approx(sum(found["kl_of_dims"]))
    assert found["kl"] == pytest.approx(found["mutual_information"] + found["gap"])
    assert found["stderr_kl"] is found["kl_of_groups"] is found["prior_classes"] is None
    assert len(found["kl_of_dims"]) == found["dims"]


def mixture_of(prior):
    """Return a prior of classes or clusters without a label, as one of torch's."""
    loc = prior.loc.flatten(1)
    scale = prior.log_scale.flatten(1).exp() if hasattr(prior, "log_scale") else torch.ones_like(loc)
    return MixtureSameFamily(Categorical(logits=torch.zeros(len(loc))), Independent(Normal(loc, scale), 1))


@pytest.mark.parametrize(("name", "classes"), [("clusters", 4), ("classes", 10)])
def test_without_labels_the_prior_is_the_mixture_of_its_normals(runs, capsys, name, classes):
    model, x = opened(runs / name)
    with fixed_draws(1), torch.inference_mode():
        loc, log_scale = model.density.code(x)
        q, p = Independent(Normal(loc.double(), log_scale.double().exp()), 1), mixture_of(model.density.prior.double())
        z = q.sample((DRAWS,))
        drawn = q.log_prob(z) - p.log_prob(z)
    found = answer(capsys, "diagnose", runs / name, "--draws", DRAWS)
    agrees(found["kl"], found["stderr_kl"], drawn)
    assert found["prior_classes"] == classes
    assert main(["diagnose", str(runs / name), "-n", "50"]) == 0
    assert f"from 4 draws of each code; p(z) without labels, the mixture of {classes})" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["mixture", "mixed"])
def test_kl_is_that_of_other_draws(runs, capsys, name):
    model, x = opened(runs / name)
    with fixed_draws(1), torch.inference_mode():
        drawn = torch.stack([model.density.parts(x)["kl"].sum(1) for _ in range(DRAWS)]).double()
    found = answer(capsys, "diagnose", runs / name, "--draws", DRAWS)
    agrees(found["kl"], found["stderr_kl"], drawn)
    assert found["kl_of_dims"] is found["kl_of_groups"] is found["prior_classes"] is None


def test_what_is_drawn_adds_up(runs, capsys):
    found = answer(capsys, "diagnose", runs / "mixture")
    assert found["kl"] == pytest.approx(found["mutual_information"] + found["gap"], abs=1e-9)
    assert found["stderr_gap"] > 0
    assert found["active_units"] <= found["dims"] == 3
    assert answer(capsys, "diagnose", runs / "mixture") == found
    assert answer(capsys, "diagnose", runs / "mixture", "--seed", 1)["kl"] != found["kl"]
    assert main(["diagnose", str(runs / "mixture")]) == 0
    told = capsys.readouterr().out
    assert "from 4 draws of each code)" in told
    assert "KL by" not in told


def test_a_hierarchy_has_kl_of_its_groups_alone(runs, capsys):
    """Σ_l E KL(q(z_l | z_<l, x) ‖ p(z_l | z_<l)) is E log q(z | x) / p(z), which importance weights hold."""
    model, x = opened(runs / "nvae")
    with fixed_draws(1), torch.inference_mode():
        drawn = torch.stack([model.parts(x)["reconstruction"] - model.log_weight(x) for _ in range(DRAWS)]).double()
    found = answer(capsys, "diagnose", runs / "nvae", "--draws", 8)
    # The reconstruction is of other draws than the weights: its noise is in their error.
    agrees(found["kl"], found["stderr_kl"], drawn)
    assert found["kl"] == pytest.approx(sum(found["kl_of_groups"]))
    assert found["used_groups"] == sum(kl > 0.01 for kl in found["kl_of_groups"])
    assert len(found["kl_of_groups"]) == 4
    for name in ("mutual_information", "stderr", "gap", "stderr_gap", "active_units", "kl_of_dims"):
        assert found[name] is None
    assert main(["diagnose", str(runs / "nvae"), "-n", "50"]) == 0
    told = capsys.readouterr().out
    assert "not estimated: q(z | x) is not normal" in told
    assert "KL by group" in told


def test_what_has_no_codes_and_too_few_draws_are_refused(runs, capsys):
    assert "holds a nice" in refused(capsys, "diagnose", runs / "flow")
    for name in ("vib", "nvae"):
        assert "--draws >= 2" in refused(capsys, "diagnose", runs / name, "--draws", 1)
        assert "-n >= 2" in refused(capsys, "diagnose", runs / name, "-n", 1)

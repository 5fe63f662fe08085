"""The clustering autoencoder: its bound against torch.distributions, the essay's loss, and the command."""

import csv
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tolerances import close
from torch import nn

import longflow
from longflow.commands.cluster import cluster
from longflow.commands.configure import Settings
from longflow.commands.draw import sample
from longflow.commands.evaluate import evaluate
from longflow.commands.train import train_run
from longflow.distributions import ClassNormal, ClusterNormal
from longflow.errors import UsageError
from longflow.quality import agreement
from longflow.training import Recipe
from longflow.words import cluster_words

SMALL = {"clusters": 3, "latent": 2, "width": 16, "depth": 1, "units": 8}


def small(**options):
    """A model of vectors of four numbers, every parameter stirred, in float64."""
    model = longflow.build("clustervae", (4,), **{**SMALL, "weight": 4.0, **options}).double()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn_like(p)
        model.prior.loc.normal_()
    return model


def weight_of(model):
    """The weight λ of the essay, from the deviation of the likelihood, which is stored in single precision."""
    weight = math.exp(-2 * model.observation.inner.log_scale.item())
    assert weight == pytest.approx(4.0, abs=1e-5)
    return weight


def witnessed(model, x):
    """What one draw says, with the code that was drawn and log q(z | x) - log p(z): the same seed draws the same."""
    torch.manual_seed(5)
    found = model.draw(x)
    torch.manual_seed(5)
    z = model.posterior.sample(len(x), x)
    torch.manual_seed(5)
    log_ratio = found.reconstruction - model.log_weight(x)
    return SimpleNamespace(z=z, reconstruction=found.reconstruction, divergence=found.divergence, log_ratio=log_ratio)


def drawn(model, rows=6):
    """Data, and what the model says of one draw of their codes, with the moments and the noise of that draw."""
    x = torch.rand(rows, 4, dtype=torch.float64)
    found = witnessed(model, x)
    loc, log_scale = model.code(x)
    return x, found, loc, log_scale, (found.z - loc) / log_scale.exp()


def test_the_bound_is_that_of_its_definition():
    """log p(x | z) - Σ_y q(y | z) log (q(z | x) / p(z | y)) - KL(q(y | z) ‖ 1/K), each by torch.distributions."""
    model = small()
    x, found, loc, log_scale, _ = drawn(model)
    z = found.z
    posterior = torch.distributions.Independent(torch.distributions.Normal(loc, log_scale.exp()), 1)
    of_x = torch.distributions.Normal(model.decode(z), weight_of(model) ** -0.5)
    q = torch.distributions.Categorical(logits=model.assigner(z))
    expected = of_x.log_prob(x).sum(1)
    for y in range(3):
        of_y = torch.distributions.Independent(torch.distributions.Normal(model.prior.loc[y], 1.0), 1)
        expected = expected - q.probs[:, y] * (posterior.log_prob(z) - of_y.log_prob(z))
    uniform = torch.distributions.Categorical(torch.ones(6, 3, dtype=torch.float64))
    expected = expected - torch.distributions.kl_divergence(q, uniform)
    close(found.reconstruction - found.divergence.sum(1), expected)
    close(found.divergence[:, -1], torch.distributions.kl_divergence(q, uniform))


def test_it_is_the_essays_loss_with_its_constants():
    """The essay weighs ½‖x - x̂‖² by λ and leaves constants, and the noise's square, out: gradients are the same."""
    model = small()
    x, found, _, log_scale, noise = drawn(model)
    z, y = found.z, model.memberships(found.z)
    weight = weight_of(model)
    essay = 0.5 * weight * (x - model.decode(z)).square().sum(1)
    for k in range(3):
        essay = essay + y[:, k] * (0.5 * (z - model.prior.loc[k]).square() - log_scale).sum(1)
    essay = essay + (y * y.log()).sum(1)
    ours = found.divergence.sum(1) - found.reconstruction
    constant = 4 / 2 * math.log(2 * math.pi / weight) - 0.5 * noise.square().sum(1) + math.log(3)
    close(ours, essay + constant)
    grads = [torch.autograd.grad(loss.sum(), list(model.parameters()), retain_graph=True) for loss in (ours, essay)]
    for a, b in zip(*grads, strict=True):
        close(a, b)


def test_the_marginal_bound_is_better_by_the_divergence_from_bayes_rule():
    model = small()
    _, found, *_ = drawn(model)
    bayes = torch.distributions.Categorical(logits=-0.5 * (found.z[:, None] - model.prior.loc).square().sum(2))
    q = torch.distributions.Categorical(logits=model.assigner(found.z))
    close(found.divergence.sum(1) - found.log_ratio, torch.distributions.kl_divergence(q, bayes))
    with torch.no_grad():
        rule = nn.Linear(2, 3).double()
        rule.weight.copy_(model.prior.loc)
        rule.bias.copy_(-0.5 * model.prior.loc.square().sum(1))
    model.assigner = rule
    _, found, *_ = drawn(model)
    close(found.divergence.sum(1), found.log_ratio)


def test_given_a_cluster_it_is_a_plain_autoencoder_of_that_mean():
    model = small()
    x, y = torch.rand(5, 4, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0])
    loc, log_scale = model.code(x)
    own = torch.distributions.Normal(model.prior.loc[y], 1.0)
    close(
        model.draw(x, y).divergence,
        torch.distributions.kl_divergence(torch.distributions.Normal(loc, log_scale.exp()), own),
    )
    still = model.sample(2, torch.tensor([1, 2]), temperature=0.0)
    close(still, model.decode(model.prior.loc[[1, 2]]))


def test_the_prior_is_that_of_classes_with_deviations_of_one():
    ours, classes = ClusterNormal((3,), 4).double(), ClassNormal((3,), torch.arange(3)[:, None], 4).double()
    with torch.no_grad():
        ours.loc.normal_()
        classes.raw_loc.copy_(ours.loc[:, :, None] / 10)
    z, y = torch.randn(9, 3, dtype=torch.float64), torch.arange(9) % 4
    for context in (None, y):
        close(ours.log_prob(z, context), classes.log_prob(z, context))
    assert torch.equal(ours.likeliest(z), classes.likeliest(z))
    close(ours.standardised(z), classes.standardised(z))
    with pytest.raises(UsageError, match="classes 0 to 3"):
        ours.log_prob(z, y + 1)


def test_presets_are_the_essays_network_and_that_of_its_dense_copy():
    essay = longflow.build("clustervae", (1, 28, 28), preset="essay")
    convs = [m for m in essay.posterior.network.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.out_channels, c.stride[0]) for c in convs] == [(32, 2), (32, 1), (64, 2), (64, 1)]
    dense = longflow.build("clustervae", (1, 28, 28), preset="mnist")
    linear = [m for m in dense.posterior.network.modules() if isinstance(m, nn.Linear)]
    assert [m.in_features for m in linear] + [linear[-1].out_features] == [784, 512, 256, 40]
    x = torch.rand(2, 1, 28, 28)
    for model in (essay, dense):
        assert model.decode(model.encode(x)).shape == x.shape
        assert model.observation.inner.log_scale.item() == pytest.approx(-0.5 * math.log(2.5))
    assert longflow.build("clustervae", (1, 28, 28)).observation.inner.log_scale.item() == pytest.approx(
        -0.5 * math.log(2.5)
    )


@pytest.fixture(scope="module")
def blobs(tmp_path_factory):
    """A run on three groups of points, and its data with labels: clusters are there to be found."""
    folder = tmp_path_factory.mktemp("clusters")
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=600)
    x = np.array([[-4.0, 0, 2, 0], [4, 0, 0, 2], [0, 5, 0, 0]])[y] + 0.3 * rng.standard_normal((600, 4))
    np.savez(folder / "blobs.npz", x=x, y=y)
    torch.manual_seed(0)
    settings = Settings(data=str(folder / "blobs.npz"), out=str(folder / "run"), steps=600, device="cpu", threads=1)
    run = train_run("clustervae", settings, Recipe(lr=3e-3, schedule="constant"), {**SMALL, "weight": 30.0})
    return run, folder


def test_it_finds_clusters_that_are_there(blobs):
    run, folder = blobs
    result = cluster(str(run.path), split="train")
    assert result["agreement"]["accuracy"] > 0.99
    assert result["occupancy"]["used"] == 3
    lines = list(csv.reader(Path(result["out"]).read_text().splitlines()))
    assert lines[0] == ["row", "cluster", "p", "p0", "p1", "p2"]
    p = np.array([[float(v) for v in line[3:]] for line in lines[1:]])
    assert p.sum(1) == pytest.approx(np.ones(len(p)), abs=1e-4)
    assert [int(line[1]) for line in lines[1:]] == p.argmax(1).tolist()
    assert [float(line[2]) for line in lines[1:]] == p.max(1).tolist()
    assert [int(line[0]) for line in lines[1:]] == list(range(result["n"]))
    assert "accuracy 9" in cluster_words(result) or "accuracy 100" in cluster_words(result)
    assert "picture" not in result
    # The draws of a cluster are its own: classified by the nearest centre of the data.
    for k, label in result["agreement"]["matching"].items():
        path = folder / f"draws{k}.csv"
        sample(str(run.path), n=50, label=k, temperature=(0.3,), out=str(path))
        points = np.loadtxt(path, delimiter=",", skiprows=1)
        centres = np.array([[-4.0, 0, 2, 0], [4, 0, 0, 2], [0, 5, 0, 0]])
        nearest = np.linalg.norm(points[:, None] - centres, axis=2).argmin(1)
        assert (nearest == label).mean() > 0.95


def test_clusters_are_no_classes(blobs):
    """The numbers of clusters say nothing: no share of right labels is told of them."""
    run, folder = blobs
    assert "accuracy" not in evaluate(str(run.path), device="cpu")
    model = longflow.load(run.path)
    data = np.load(folder / "blobs.npz")
    z = model.encode(torch.from_numpy(data["x"]).float())
    found = model.predictions(z)["clusters"]
    assert torch.equal(found, model.memberships(z).argmax(1))
    assert agreement(found.numpy(), data["y"]).accuracy > 0.98


def test_without_labels_there_is_no_agreement(blobs, tmp_path):
    run, folder = blobs
    np.savez(tmp_path / "bare.npz", x=np.load(folder / "blobs.npz")["x"])
    result = cluster(str(run.path), data=str(tmp_path / "bare.npz"), n=20, out=str(tmp_path / "found.csv"))
    assert result["n"] == 20
    assert "agreement" not in result
    assert "purity" not in cluster_words(result)
    result |= {"n": 1, "clusters": 3, "occupancy": {"used": 2, "shares": [0.0, 0.25, 0.75]}}
    assert "1 test event of bare.npz: 2 of 3 clusters used, of 25.0% to 75.0% of the events" in cluster_words(result)
    with pytest.raises(UsageError, match="already exists"):
        cluster(str(run.path), out=str(tmp_path / "found.csv"))


def test_pictures_of_clusters_are_their_members_and_draws(tmp_path):
    settings = Settings(data="digits", out=str(tmp_path / "r"), steps=5, device="cpu", threads=1)
    run = train_run("clustervae", settings, Recipe(batch=50), {**SMALL, "clusters": 4, "squash": True})
    result = cluster(str(run.path), n=30)
    with Image.open(result["picture"]) as picture:
        height, width = picture.height, picture.width
    assert width > 2 * height  # four strips of ten members and ten draws
    assert len(result["occupancy"]["shares"]) == 4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"clusters": 1}, "clusters >= 2"),
        ({"clusters": 2.5}, "clusters >= 2"),
        ({"weight": 0.0}, "weight > 0"),
        ({"weight": math.nan}, "weight > 0"),
        ({"units": 0}, "units >= 1"),
        ({"network": "convpairs"}, "did you mean 'conv-pairs'"),
        ({"network": "conv-pairs"}, "pictures"),
    ],
)
def test_bad_options_are_told(options, says):
    with pytest.raises(UsageError, match=says):
        longflow.build("clustervae", (4,), **options)


def test_bad_requests_are_told(blobs, tmp_path):
    run, folder = blobs
    for call, says in (
        (lambda: cluster(str(run.path), n=0), "-n >= 1"),
        (lambda: cluster(str(run.path), out="found.png"), r"\.csv"),
        (lambda: cluster(str(run.path), data="digits"), "shape"),
        (lambda: sample(str(run.path), label=3), "0 to 2"),
    ):
        with pytest.raises(UsageError, match=says):
            call()
    settings = Settings(data=str(folder / "blobs.npz"), out=str(tmp_path / "r"), steps=2, device="cpu", threads=1)
    with pytest.raises(UsageError, match="480 clusters, one for each training row; 481 came"):
        train_run("clustervae", settings, Recipe(), {**SMALL, "clusters": 481})
    other = train_run("vae", settings, Recipe(), {"latent": 2, "width": 4})
    with pytest.raises(UsageError, match="no model of clusters"):
        cluster(str(other.path))


@pytest.mark.parametrize("preset", ["essay", "mnist", "digits"])
def test_weights_start_by_glorot(preset):
    """Uniform of ±√(6 / (fan in + fan out)): torch's default, for layers as these, is smaller or larger."""
    model = longflow.build("clustervae", (1, 28, 28), preset=preset)
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
    assert len(layers) > 4
    for layer in layers:
        ahead, back = layer.weight.shape[:2]
        bound = math.sqrt(6 / ((ahead + back) * layer.weight[0, 0].numel()))
        assert 0.9 * bound < layer.weight.abs().max().item() <= bound
        assert not layer.bias.any()

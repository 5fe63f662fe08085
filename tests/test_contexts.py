"""Conditional densities end to end: against densities that are known, and through every door."""

import json
import math

import numpy as np
import pytest
import torch
from doors import answer, refused
from test_models import OWN, SMALL, stirred
from tolerances import SIGMAS, close
from torch.func import jacrev

import longflow
from longflow import figures
from longflow.cli import main
from longflow.commands.conditional import conditional_sections
from longflow.commands.configure import Settings
from longflow.commands.datasets import dataset_of
from longflow.commands.evaluate import log_likelihoods
from longflow.commands.train import train_run
from longflow.data import Contexts, Dataset, load
from longflow.distributions import Flow
from longflow.errors import UsageError
from longflow.models import CATALOGUE, assemble
from longflow.nets import MLP, Standardiser, embedding
from longflow.runs import Run
from longflow.training import Batches, Recipe

CONDITIONAL = [name for name, model in CATALOGUE.items() if "context" in model.options]
LITTLE = {"fm": {"width": 8, "depth": 1, "evaluation_steps": 64}, **SMALL}
QUICK = Recipe(lr=3e-3, batch=100, schedule="constant")
TINY = {"width": 12, "blocks": 1}
FLAGS = ["--width", "12", "--blocks", "1", "--threads", "1"]
SLOPE = np.array([[2.0, -1.0], [0.5, 1.5]])


def drawn(n, seed=0):
    """Return contexts c, rows x of N(SLOPE c + 1, LLᵀ), L = [[e^c1 / 2, 0], [c2, 1/2]], and log p(x | c)."""
    generator = np.random.default_rng(seed)
    c, e = generator.uniform(-1, 1, (n, 2)), generator.normal(size=(n, 2))
    first = np.exp(c[:, 0]) / 2
    x = c @ SLOPE.T + 1 + np.stack((first * e[:, 0], c[:, 1] * e[:, 0] + 0.5 * e[:, 1]), 1)
    return c, x, -np.square(e).sum(1) / 2 - math.log(2 * math.pi) - np.log(first * 0.5)


def write(path, names, columns):
    lines = (",".join(f"{v:.9g}" for v in row) for row in np.column_stack(columns))
    path.write_text("\n".join([",".join(names), *lines]) + "\n")
    return path


def a_table(path, n=600, scale=1.0):
    """Write x1, a, x2, b: contexts stand between the others; b is in other units."""
    c, x, _ = drawn(n)
    return write(path, ["x1", "a", "x2", "b"], [x[:, 0], c[:, 0], x[:, 1], scale * c[:, 1]])


def quick(data, out, steps=60, **settings):
    chosen = Settings(data=str(data), steps=steps, out=str(out), threads=1, **{"context": ("a", "b"), **settings})
    return train_run("realnvp", chosen, QUICK, TINY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("contexts")


@pytest.fixture(scope="module")
def table(folder):
    return a_table(folder / "t.csv")


@pytest.fixture(scope="module")
def run(folder, table):
    out = folder / "run"
    assert (
        main(["train", "realnvp", "--data", str(table), "--context", "a,b", "--steps", "60", "--out", str(out), *FLAGS])
        == 0
    )
    return out


@pytest.fixture(scope="module")
def arrays(folder):
    """Pictures as contexts of three numbers, in an .npz."""
    generator = np.random.default_rng(1)
    x = generator.normal(size=(90, 3))
    pictures = x[:, :1, None, None] + generator.normal(size=(90, 1, 4, 5))
    np.savez(folder / "p.npz", x=x, seen=pictures, theta=x[:, :2] ** 2, one=x[:, 0])
    return folder / "p.npz"


# Against what is known


def test_a_known_conditional_density_is_learnt(tmp_path):
    c, x, _ = drawn(5000)
    table = write(tmp_path / "t.csv", ["x1", "a", "x2", "b"], [x[:, 0], c[:, 0], x[:, 1], c[:, 1]])
    run = quick(table, tmp_path / "run", steps=450)
    c, x, truth = drawn(2000, seed=9)
    model, x, c = longflow.load(run.path), torch.tensor(x).float(), torch.tensor(c).float()
    with torch.no_grad():
        error = model(x, c).double().numpy() - truth
        shuffled = model(x, c[torch.randperm(2000)]).mean().item()
    assert -0.08 < error.mean() < SIGMAS * error.std() / math.sqrt(2000)
    assert np.abs(error).mean() < 0.2
    one_gaussian = torch.distributions.MultivariateNormal(x.mean(0), torch.cov(x.T)).log_prob(x).mean().item()
    assert truth.mean() + error.mean() > one_gaussian + 1.5
    assert shuffled < one_gaussian - 0.7
    place = torch.tensor([0.5, -0.8])
    with torch.no_grad():
        samples = model.sample(4000, place.expand(4000, 2)).double()
    close(samples.mean(0), torch.tensor(SLOPE @ place.numpy() + 1).double(), 0.1)
    factor = torch.tensor([[math.exp(0.5) / 2, 0], [-0.8, 0.5]]).double()
    close(torch.cov(samples.T), factor @ factor.T, 0.12)


def test_units_of_contexts_do_not_matter(tmp_path):
    likelihoods = []
    for scale in (1.0, 1000.0):
        run = quick(a_table(tmp_path / f"{scale:g}.csv", scale=scale), tmp_path / f"run{scale:g}", steps=40)
        likelihoods.append(log_likelihoods(longflow.load(run.path), dataset_of(run).events("test")))
    np.testing.assert_allclose(*likelihoods, atol=1e-3)


@pytest.mark.parametrize("name", CONDITIONAL)
@pytest.mark.parametrize("features", [0, 4])
def test_every_model_is_conditional_through_an_embedding(name, features, tmp_path):
    """log p(x | c) is that of the base and the Jacobian at c, and gradients reach the network."""
    own = {k: v for k, v in OWN.get(name, {}).items() if k in CATALOGUE[name].options}
    made = {"context_shape": [2], "embed_features": features, "embed_width": 6, "embed_depth": 1}
    options = CATALOGUE[name].resolve(None, {**LITTLE[name], **own, "context": features or 2})
    model = assemble(
        {"model": name, "options": options, "shape": [3], "preprocess": "none", "levels": None, "embedding": made}
    )
    assert isinstance(model, Flow)
    stirred(model).eval()
    next(m for m in model.modules() if isinstance(m, Standardiser)).fit(torch.randn(50, 2) * 30 + 100)
    model.save(tmp_path / "model")
    x, c = torch.randn(4, 3), torch.randn(4, 2) * 30 + 100
    assert torch.equal(longflow.load(tmp_path / "model").log_prob(x, c), model.log_prob(x, c))
    model.double()
    x, c = x.double(), c.double()
    rows = [jacrev(lambda row, k=k: model.encode(row[None], c[k : k + 1])[0])(x[k]) for k in range(4)]
    z = model.encode(x, c)
    close(model.log_prob(x, c), model.base.log_prob(z) + torch.linalg.slogdet(torch.stack(rows)).logabsdet)
    close(model.decode(z, c), x)
    assert (model.log_prob(x, c) - model.log_prob(x, c.flip(0))).abs().min() > 1e-6
    close(torch.stack([model.at(c[k]).log_prob(x[k : k + 1])[0] for k in range(4)]), model.log_prob(x, c))
    model.train().log_prob(x, c).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for n, p in model.named_parameters() if "embedding" in n)


@pytest.mark.parametrize("memory", ["checkpoint", "reversible"])
def test_saving_memory_does_not_cut_off_the_embedding(memory):
    grads = []
    for kind in ("full", memory):
        torch.manual_seed(0)
        flow = longflow.build("realnvp", shape=(4,), context=3, memory=kind, **TINY)
        stirred(flow)
        flow.embed(MLP(5, 3, hidden=7, depth=1, init="glorot"), (5,))
        stirred(flow).double()
        flow.log_prob(torch.randn(6, 4).double(), torch.randn(6, 5).double()).sum().backward()
        grads.append([p.grad for n, p in flow.named_parameters() if "embedding" in n])
    assert len(grads[0]) == 4
    for ours, plain in zip(*grads, strict=True):
        close(ours, plain)


def test_any_module_embeds_and_a_misfit_is_told():
    flow = longflow.build("nice", shape=(2,), hidden=8, depth=1, context=3)
    flow.embed(embedding((2, 9), features=3, width=4, depth=2), (2, 9))
    assert flow.log_prob(torch.randn(5, 2), torch.randn(5, 2, 9)).shape == (5,)
    assert flow.sample(5, torch.randn(5, 2, 9)).shape == (5, 2)
    with pytest.raises(UsageError, match=r"contexts of shape \(2, 9\); \(4,\) came"):
        flow.embed(torch.nn.Linear(1, 4), (1,))
    with pytest.raises(UsageError, match="expects a flow with a context"):
        longflow.build("nice", shape=(2,)).embed(torch.nn.Linear(1, 1), (1,))
    with pytest.raises(UsageError, match="expected a context of shape"):
        flow.log_prob(torch.randn(5, 2), torch.randn(4, 2, 9))
    with pytest.raises(UsageError, match="takes none"):
        longflow.build("nice", shape=(2,)).at(torch.zeros(1))


@pytest.mark.parametrize(("shape", "depth"), [((3,), 0), ((3,), 2), ((2, 7), 2), ((1, 5, 6), 3), ((2, 1), 1)])
def test_embeddings_of_every_shape(shape, depth):
    network = embedding(shape, features=4, width=5, depth=depth)
    c = torch.randn(6, *shape)
    network[0].fit(100 * c + 7)
    assert network(100 * c + 7).shape == (6, 4)
    np.testing.assert_allclose(network[0](100 * c + 7).mean((0, *range(2, c.dim()))).detach(), 0, atol=1e-5)
    assert embedding(shape)(c).shape == (6, math.prod(shape))
    assert torch.equal(network(c)[2:3], network(c[2:3])) or (network(c)[2] - network(c[2:3])[0]).abs().max() < 1e-6


# Data


def test_columns_become_contexts_in_the_order_asked(table):
    data = load(table, context=("b", "a"))
    plain = load(table)
    assert (data.columns, data.contexts.names, data.contexts.table) == (
        ("x1", "x2"),
        ("b", "a"),
        ("x1", "a", "x2", "b"),
    )
    for split in data.splits:
        np.testing.assert_array_equal(data.split(split), plain.split(split)[:, [0, 2]])
        np.testing.assert_array_equal(data.events(split).contexts, plain.split(split)[:, [3, 1]])
    assert (
        load(table, context=("b,a",)).contexts.sha256
        == data.contexts.sha256
        != load(table, context=("a", "b")).contexts.sha256
    )
    assert data.events("test")[[2, 0]].contexts.tolist() == data.contexts.splits["test"][[2, 0]].tolist()


def test_names_with_commas_are_names(tmp_path):
    write(tmp_path / "t.csv", ['"height, cm"', "b", "c"], np.random.default_rng(0).normal(size=(3, 30)))
    assert load(tmp_path / "t.csv", context=("height, cm",)).contexts.names == ("height, cm",)
    assert load(tmp_path / "t.csv", context=("height, cm", "b")).columns == ("c",)


def test_arrays_of_any_shape_are_contexts(arrays, tmp_path):
    assert load(arrays, context=("seen",)).contexts.shape == (1, 4, 5)
    assert load(arrays, context=("theta",)).contexts.features == ("theta1", "theta2")
    assert load(arrays, context=("one",)).contexts.features == ("one",)
    x, c = np.random.default_rng(0).normal(size=(2, 40, 2))
    np.savez(tmp_path / "s.npz", train=x, train_context=c, val=x[:5], val_context=c[:5], test=x[:9], test_context=c[:9])
    data = load(tmp_path / "s.npz", context=("context",))
    np.testing.assert_array_equal(data.events("validation").contexts, np.float32(c[:5]))


@pytest.mark.parametrize(
    ("contexts", "told"),
    [
        ({}, "unknown array of contexts"),
        ({"context": np.zeros((39, 2))}, "expected numbers for 40 rows"),
        ({"context": np.full((40, 2), "a")}, "expected numbers for 40 rows"),
        ({"context": np.full((40, 2), np.nan)}, "contexts of train: 80 values missing, infinite"),
        ({"context": np.ones((40, 2)) * np.arange(40)[:, None] * [1, 0]}, "context 'context2' has the same value"),
        ({"context": np.zeros((40, 2, 3, 3))}, "channel 0 has the same value"),
        ({"context": np.zeros((40, 0))}, "there is nothing in them"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_contexts_are_told(contexts, told, tmp_path):
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(40, 2)), **contexts)
    with pytest.raises(UsageError) as caught:
        load(tmp_path / "d.npz", context=("context",))
    assert told in str(caught.value)


def test_a_data_set_checks_its_contexts():
    rows = {
        split: np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
        for split in ("train", "validation", "test")
    }
    given = {split: x[:8, :1] for split, x in rows.items()}
    with pytest.raises(UsageError, match="expected float32 contexts of 9 rows for train"):
        Dataset("d", rows, None, contexts=Contexts(("c",), given))


# Training


def test_a_run_keeps_what_its_contexts_are(run):
    config = json.loads((run / "config.json").read_text())
    assert config["options"]["context"] == 2
    assert config["embedding"] == {"context_shape": [2], "embed_features": 0, "embed_width": 64, "embed_depth": 2}
    assert config["data"]["columns"] == ["x1", "x2"]
    assert config["data"]["context_columns"] == config["data"]["context_features"] == ["a", "b"]
    assert config["data"]["table"] == ["x1", "a", "x2", "b"]
    assert "given" in (run / "report.html").read_text()
    assert len(list((run / "samples").glob("density-*.png"))) == 3


def test_densities_under_contexts_are_drawn_in_one_scale(run, monkeypatch):
    drawn, density = [], figures.density
    monkeypatch.setattr(figures, "density", lambda heat, **how: drawn.append((heat, how)) or density(heat, **how))
    dataset = dataset_of(Run.open(run))
    conditional_sections(longflow.load(run), dataset, Run.open(run).config())
    assert len(drawn) == 3
    for _, how in drawn:
        assert how["brightest"] == figures.brightest_of([heat for heat, _ in drawn])


def test_resumed_training_is_bit_identical(table, tmp_path):
    """With an embedding, whose contexts must go on in step with their rows."""
    whole = quick(table, tmp_path / "whole", steps=24, embed_features=3)
    quick(table, tmp_path / "half", steps=12, embed_features=3)
    with pytest.raises(UsageError, match="embed_features 3; 0 came"):
        quick(table, tmp_path / "half", steps=24, resume=True)
    with pytest.raises(UsageError, match=r"context_columns \['a', 'b'\]; \['b', 'a'\] came"):
        quick(table, tmp_path / "half", steps=24, embed_features=3, context=("b", "a"), resume=True)
    stopped = Run(tmp_path / "half").checkpoint()["state"]["model"]
    half = quick(table, tmp_path / "half", steps=24, embed_features=3, resume=True)
    ends = [run.checkpoint()["state"]["model"] for run in (whole, half)]
    assert all(torch.equal(ends[0][name], value) for name, value in ends[1].items())
    assert any(not torch.equal(stopped[name], value) for name, value in ends[1].items())


def test_resume_takes_contexts_from_the_run(table, tmp_path, capsys):
    run = quick(table, tmp_path / "run", steps=2, embed_features=3)
    answer(capsys, "train", "realnvp", "--resume", "--steps", 4, "--out", run.path)
    assert run.config()["steps"] == 4


def test_statistics_of_batches_are_taken_under_contexts(table, tmp_path):
    settings = Settings(data=str(table), steps=3, out=str(tmp_path / "run"), threads=1, context=("b",))
    run = train_run("realnvp", settings, QUICK, {**TINY, "norm": "batch"})
    variances = [value for name, value in run.weights().items() if name.endswith("variance")]
    assert variances
    assert all((value != 1).all() for value in variances)


def test_shares_of_processes_pair_rows_with_their_contexts():
    rows = torch.arange(40.0)[:, None]
    parts = [Batches(rows, 10 * rows, 8, 0, rank=rank, world=2) for rank in (0, 1)]
    for step in range(7):
        whole, context = Batches(rows, 10 * rows, 8, 0)(step)
        assert torch.equal(context, 10 * whole)
        found = [part(step) for part in parts]
        assert all(torch.equal(c, 10 * x) for x, c in found)
        assert torch.equal(torch.stack([x for x, _ in found], 1).flatten(0, 1), whole)


def test_python_loads_what_train_made(table, run, tmp_path, capsys):
    model = longflow.load(run)
    data = load(table, context=("a", "b")).events("test")
    x, c = torch.as_tensor(data.rows), torch.as_tensor(data.contexts)
    with torch.no_grad():
        assert answer(capsys, "evaluate", run)["nats"] == pytest.approx(model(x, c).mean().item(), abs=1e-5)
    assert (model(x, c.double()) == model(x, c)).all()


# The doors


def test_evaluate_says_what_is_given(run, capsys):
    assert answer(capsys, "evaluate", run)["context"] == ["a", "b"]
    assert main(["evaluate", str(run)]) == 0
    assert "of p(x | a, b)" in capsys.readouterr().out


def test_samples_are_scored_again_wherever_their_contexts_stand(run, folder, capsys):
    out = folder / "s.csv"
    answer(capsys, "sample", run, "-n", 50, "--out", out)
    lines = out.read_text().splitlines()
    assert lines[0] == "x1,a,x2,b"
    rows = np.loadtxt(lines[1:], delimiter=",")
    train = load(folder / "t.csv", context=("a", "b")).contexts.splits["train"]
    assert all((np.abs(train - row).max(1) < 1e-6).any() for row in rows[:, [1, 3]])
    assert len(np.unique(rows[:, 1])) > 30
    found = answer(capsys, "score", run, out)
    scores = np.loadtxt((run / "s-scores.csv").read_text().splitlines()[1:], delimiter=",")[:, 0]
    model = longflow.load(run)
    with torch.no_grad():
        expected = model(torch.tensor(rows[:, [0, 2]]).float(), torch.tensor(rows[:, [1, 3]]).float())
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert found["n"] == 50
    write(folder / "moved.csv", ["b", "x1", "x2", "a"], [rows[:, 3], rows[:, 0], rows[:, 2], rows[:, 1]])
    answer(capsys, "score", run, folder / "moved.csv")
    again = np.loadtxt((run / "moved-scores.csv").read_text().splitlines()[1:], delimiter=",")[:, 0]
    np.testing.assert_allclose(again, scores, atol=1e-5)


def test_whole_contexts_stay_whole_and_supports_are_those_of_the_others(tmp_path, capsys):
    c, x, _ = drawn(300)
    year, count = np.rint(2000 + 10 * c[:, 0]), np.rint(np.exp(x[:, 0] / 2))
    data, out = tmp_path / "t.csv", tmp_path / "run"
    lines = (f"{k:.0f},{y:.0f},{v:.6f}" for k, y, v in zip(count, year, x[:, 1], strict=True))
    data.write_text("\n".join(["count,year,x", *lines]) + "\n")
    flags = ["--data", data, "--context", "year", "--steps", 4, "--out", out, *FLAGS]
    told = refused(capsys, "train", "realnvp", *flags, "--support", "year=integer")
    assert "year" in told
    answer(capsys, "train", "realnvp", *flags, "--support", "count=integer")
    answer(capsys, "sample", out, "-n", 9, "--given", "year=2003", "--out", tmp_path / "s.csv")
    rows = [line.split(",") for line in (tmp_path / "s.csv").read_text().splitlines()]
    assert rows[0] == ["count", "year", "x"]
    assert {row[1] for row in rows[1:]} == {"2003"}
    assert all(row[0].lstrip("-").isdigit() for row in rows[1:])
    assert answer(capsys, "score", out, tmp_path / "s.csv")["n"] == 9


def test_samples_given_values_and_given_files(run, folder, table, capsys):
    answer(capsys, "sample", run, "-n", 7, "--given", " b = -.5e0, a=0.25", "--out", folder / "g.csv")
    rows = np.loadtxt((folder / "g.csv").read_text().splitlines()[1:], delimiter=",")
    assert set(map(tuple, rows[:, [1, 3]])) == {(0.25, -0.5)}
    write(folder / "only.csv", ["b", "a"], [[0.1, 0.2], [0.3, 0.4]])
    answer(capsys, "sample", run, "-n", 5, "--given-file", folder / "only.csv", "--out", folder / "f.csv")
    rows = np.loadtxt((folder / "f.csv").read_text().splitlines()[1:], delimiter=",")
    np.testing.assert_allclose(rows[:, [1, 3]], [[0.3, 0.1], [0.4, 0.2], [0.3, 0.1], [0.4, 0.2], [0.3, 0.1]])


def test_a_context_far_from_training_is_warned_of(run, capsys):
    assert main(["sample", str(run), "-n", "2", "--given", "a=0,b=1.05"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["sample", str(run), "-n", "2", "--given", "a=-9,b=0"]) == 0
    assert "a = -9 is far outside the training rows'" in capsys.readouterr().err


def test_the_other_verbs(run, folder, table, capsys):
    assert answer(capsys, "reconstruct", run, "--out", folder / "back.csv")["max_abs"] < 1e-4
    test = load(table, context=("a", "b")).events("test")
    back = np.loadtxt((folder / "back.csv").read_text().splitlines()[1:], delimiter=",")
    np.testing.assert_allclose(back[:, [1, 3]], test.contexts[:16], atol=1e-6)
    answer(capsys, "interpolate", run, "--pairs", 2, "--points", 3, "--out", folder / "line.csv")
    line = np.loadtxt((folder / "line.csv").read_text().splitlines()[1:], delimiter=",").reshape(2, 3, 4)
    whole = load(table).split("test")
    assert all(np.abs(whole - end).max(1).min() < 1e-4 for end in line[:, [0, 2]].reshape(-1, 4))
    np.testing.assert_allclose(line[:, 1][:, [1, 3]], line[:, [0, 2]].mean(1)[:, [1, 3]], atol=1e-6)
    assert answer(capsys, "neighbours", run, "-n", 3, "-k", 2)["n"] == 3
    found = answer(
        capsys, "edit", run, "--attribute", "x1", "--table", table, "-n", 2, "--points", 3, "--out", folder / "e.csv"
    )
    assert found["auc"] > 0.6
    edited = np.loadtxt((folder / "e.csv").read_text().splitlines()[1:], delimiter=",").reshape(2, 3, 4)
    np.testing.assert_allclose(edited[:, 1], whole[:2], atol=1e-4)
    assert answer(capsys, "quality", run, "-n", 50)["n"] == 50


def test_check_measures_under_contexts(run, capsys, monkeypatch):
    found = answer(capsys, "check", run)
    assert found["passed"]
    assert found["integral"] == pytest.approx(1, abs=1e-3)
    assert found["integral_resolved"]
    assert found["dtypes"]["float64"]["log_det_max_abs"] < 1e-9


@pytest.mark.parametrize("verb", ["traverse", "manifold", "inpaint", "latents", "resample", "probe"])
def test_verbs_without_a_use_for_contexts_say_so(verb, run, capsys):
    assert "holds a conditional density, which is for evaluate" in refused(capsys, verb, run)


def test_pictures_as_contexts(arrays, folder, capsys):
    out = folder / "seen"
    flags = ["--context", "seen", "--embed-features", 2, "--embed-width", 3, "--steps", 8, "--out", out, *FLAGS]
    answer(capsys, "train", "realnvp", "--data", arrays, *flags)
    answer(capsys, "sample", out, "-n", 4, "--given-file", arrays, "--out", folder / "seen.npz")
    file = np.load(folder / "seen.npz")
    np.testing.assert_array_equal(file["seen"], np.float32(np.load(arrays)["seen"][:4]))
    assert answer(capsys, "score", out, folder / "seen.npz")["n"] == 4
    assert "expected --given-file" in refused(capsys, "sample", out, "--given", "a=1")
    assert answer(capsys, "check", out)["passed"]


def test_pictures_under_contexts(tmp_path, capsys):
    generator = np.random.default_rng(0)
    theta = generator.uniform(size=(60, 2))
    x = (theta[:, :1, None, None] * 200 + 50 * generator.random((60, 1, 4, 4))).astype(np.uint8)
    np.savez(tmp_path / "d.npz", x=x, theta=theta)
    out = tmp_path / "run"
    flags = ["--width", 4, "--depth", 1, "--threads", 1, "--steps", 4, "--out", out]
    answer(capsys, "train", "glow", "--data", tmp_path / "d.npz", "--context", "theta", *flags)
    assert answer(capsys, "sample", out, "-n", 4, "--given", "theta1=.2,theta2=.5")["out"].endswith(".png")
    answer(capsys, "sample", out, "-n", 4, "--out", tmp_path / "s.npz")
    assert answer(capsys, "score", out, tmp_path / "s.npz")["n"] == 4


BAD_TRAINING = [
    (["--context", "a,q"], "unknown context column in t.csv: 'q' (known: x1, a, x2, b)"),
    (["--context", "x3"], "did you mean 'x"),
    (["--context", "a,a"], "'a' comes twice"),
    (["--context", "a,x1,b,x2"], "0 of 4 columns is left"),
    (["--context", "a,x1,b"], "realnvp expects events of shape (D,), D >= 2"),
    (["--embed-features", "3"], "--embed-features expects a --context"),
    (["--context", "a", "--embed-features", "-1"], "expected embed_features >= 0"),
    (["--context", "a", "--embed-features", "2", "--embed-width", "0"], "expected embed_width >= 1"),
]


@pytest.mark.parametrize(("flags", "told"), BAD_TRAINING)
def test_bad_contexts_are_told_before_training(flags, told, table, tmp_path, capsys):
    assert told in refused(capsys, "train", "realnvp", "--data", table, *flags, "--out", tmp_path / "run", *FLAGS)
    assert not (tmp_path / "run").exists()


def test_data_and_models_that_cannot_be_conditional(table, folder, tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(40, 3))
    np.save(tmp_path / "d.npy", x)
    for data in (tmp_path / "d.npy", "two-moons"):
        assert "contexts are columns" in refused(capsys, "train", "nice", "--data", data, "--context", "a")
    told = refused(capsys, "train", "vae", "--data", table, "--context", "a")
    assert "expects a model that takes one (nice, realnvp, glow" in told
    assert "vae is none" in told
    write(tmp_path / "c.csv", ["x", "y", "c"], [x[:, 0], x[:, 1], np.ones(40)])
    assert "the context 'c' has the same value" in refused(
        capsys, "train", "nice", "--data", tmp_path / "c.csv", "--context", "c"
    )
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(40) % 2, context=x)
    assert "--classes or --context, not both" in refused(
        capsys, "train", "glow", "--data", tmp_path / "d.npz", "--context", "context", "--classes", "2"
    )
    with pytest.raises(UsageError, match="expects data with some"):
        train_run("nice", Settings(data=str(table), out=str(tmp_path / "r")), QUICK, {"context": 2})


BAD_GIVEN = [
    ("a=1", "b did not come"),
    ("", "a, b did not come"),
    ("a=1,b=2,c=3", "unknown context 'c'"),
    ("a=1,bb=2", "did you mean 'b'?"),
    ("a=1,b=2,a=3", "'a' is given twice"),
    ("a=1,b=x", "expected --given \"a=NUMBER,b=NUMBER\"; 'b=x' came"),
    ("a=1,b=nan", "'b=nan' came"),
    ("a=1,b=1e99", "'b=1e99' came"),
    ("a=1,b", "'b' came"),
    ("=1,b=2", "'=1' came"),
    ("a=1,b=2=3", "unknown context 'b=2'"),
]


@pytest.mark.parametrize(("given", "told"), BAD_GIVEN)
def test_bad_given_is_told(given, told, run, capsys):
    assert told in refused(capsys, "sample", run, "--given", given)


def test_contexts_are_no_labels(run, capsys):
    assert "takes --given" in refused(capsys, "sample", run, "--label", 2)


def test_bad_files_are_told(run, table, folder, tmp_path, capsys):
    assert "not both" in refused(capsys, "sample", run, "--given", "a=1,b=2", "--given-file", table)
    plain = tmp_path / "plain"
    train_run("realnvp", Settings(data=str(table), steps=2, out=str(plain), threads=1), QUICK, TINY)
    assert "without contexts" in refused(capsys, "sample", plain, "--given", "a=1")
    columns = np.random.default_rng(0).normal(size=(4, 20))
    for names, told in (
        (["x1", "a", "x2", "q"], "unknown context column in d.csv: 'b'"),
        (["x1", "a", "q", "b"], "lacks x2 and has q"),
    ):
        write(tmp_path / "d.csv", names, columns)
        assert told in refused(capsys, "score", run, tmp_path / "d.csv")
        assert told in refused(capsys, "evaluate", run, "--data", tmp_path / "d.csv")
    write(tmp_path / "empty.csv", ["a", "b"], columns[:2, :0])
    assert "no rows" in refused(capsys, "sample", run, "--given-file", tmp_path / "empty.csv")


def test_columns_and_contexts_are_found_by_their_names(run, table, tmp_path, capsys):
    names, rows = ["x1", "a", "x2", "b"], np.loadtxt(table, delimiter=",", skiprows=1)
    mixed = write(tmp_path / "mixed.csv", ["b", "x2", "x1", "a"], rows.T[[3, 2, 0, 1]])
    write(tmp_path / "same.csv", names, rows.T)
    found = {}
    for path in (tmp_path / "same.csv", mixed):
        answer(capsys, "score", run, path, "--out", tmp_path / f"scores-{path.stem}.csv")
        drawn = tmp_path / f"drawn-{path.stem}.csv"
        answer(capsys, "sample", run, "-n", 5, "--given-file", path, "--out", drawn)
        nats = answer(capsys, "evaluate", run, "--data", path)["nats"]
        found[path.stem] = nats, (tmp_path / f"scores-{path.stem}.csv").read_text(), drawn.read_text()
    assert found["mixed"] == found["same"]
    checked = [answer(capsys, "check", run, "--data", path, "-n", 2) for path in (tmp_path / "same.csv", mixed)]
    assert checked[0]["dtypes"] == checked[1]["dtypes"]


def test_changed_contexts_are_told(tmp_path, capsys):
    run = quick(a_table(tmp_path / "t.csv"), tmp_path / "run", steps=2)
    a_table(tmp_path / "t.csv", scale=2.0)
    assert "the contexts of" in refused(capsys, "evaluate", run)
    assert "have changed" in refused(capsys, "sample", run)
    assert answer(capsys, "sample", run, "-n", 2, "--given", "a=0,b=0")["n"] == 2

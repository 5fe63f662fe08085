"""i-ResNets, residual flows and hybrids through the doors: training, evaluation, certificates, bad input."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from doors import answer, refused
from safetensors.torch import load_file, save_file
from tolerances import close

import longflow
from longflow.adaptive import ADAPT_ROWS
from longflow.bijections import Residual, Squeeze, Under, adapt, settle
from longflow.cli import main
from longflow.commands.certificate import certificate
from longflow.commands.check import _trip
from longflow.commands.evaluate import evaluate, fixed_draws
from longflow.constraints import constrain
from longflow.errors import InversionError, UsageError
from longflow.models import assemble
from longflow.nets.lipschitz import LipschitzLayer
from longflow.objectives import ClassLikelihood, MaximumLikelihood
from longflow.training import Batches, Recipe, State, train

BLOCKS = ["--blocks", "2", "--width", "8", "--depth", "1", "--threads", "1"]
PICTURES = [*BLOCKS, "--scales", "1", "--exact-dims", "8"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("residual")
    train = ["train", "iresnet", "--steps", "30"]
    assert main([*train, "--data", "two-moons", "--out", str(folder / "moons"), *BLOCKS]) == 0
    assert main([*train, "--out", str(folder / "estimated"), *PICTURES]) == 0
    hybrid = ["--classes", "10", "--label-weight", "1", *BLOCKS, "--scales", "1"]
    quick = ["--steps", "150", "--lr", "5e-3", "--density-weight", "0"]
    assert main(["train", "iresnet", *quick, "--out", str(folder / "classifier"), *hybrid]) == 0
    assert main([*train, "--out", str(folder / "hybrid"), *hybrid]) == 0
    steep = ["--steps", "10", "--lr", "3e-2", "--warmup", "0", "--ema", "0", "--width", "16", "--head", "batch"]
    assert main(["train", "iresnet", "--density-weight", "0", "--out", str(folder / "steep"), *hybrid, *steep]) == 0
    return folder


def test_small_events_are_exact(runs, capsys):
    found = answer(capsys, "evaluate", runs / "moons")
    assert found["likelihood"] == "exact"
    assert found["log_det"] == {"exact": True}
    assert answer(capsys, "evaluate", runs / "moons")["nats"] == found["nats"]


def test_estimates_say_how_they_were_had(runs, capsys):
    found = answer(capsys, "evaluate", runs / "estimated", "--draws", "3", "-n", "50")
    assert found["likelihood"] == "estimate"
    assert found["n"] == 50
    how = found["log_det"]
    assert {k: how[k] for k in ("exact", "terms", "roulette", "rate", "probes", "draws")} == {
        "exact": False, "terms": 20, "roulette": "poisson", "rate": 2.0, "probes": 1, "draws": 3,
    }  # fmt: skip
    assert how["bias_bound_bits_per_dim"] == 0
    assert 0 < how["stderr_of_draws_bits_per_dim"] < found["stderr_bits_per_dim"]
    main(["evaluate", str(runs / "estimated"), "-n", "20"])
    told = capsys.readouterr().out
    assert "20 terms and poisson roulette of 2 more on average, 1 gaussian probe, unbiased; mean of 4" in told
    assert "estimate of a lower bound" in told


def test_estimates_agree_with_the_exact_density(runs):
    """20 exact terms and a roulette against the Jacobian, on the same dequantised events."""
    model = longflow.load(runs / "estimated").density.double()
    x = torch.rand(6, 1, 8, 8, dtype=torch.float64) * 17
    with torch.no_grad():
        draws = torch.stack([model.log_prob(x) for _ in range(400)])
        for block in model.modules():
            if isinstance(block, Residual):
                block.exact_dims = 64
        exact = model.log_prob(x)
    error = draws.std(0) / math.sqrt(400)
    assert ((draws.mean(0) - exact).abs() < 4.5 * error).all()
    assert (error > 0).all()


def test_fewer_terms_than_the_run_asks_for_are_refused(runs, capsys):
    assert "at least 20 exact terms" in refused(capsys, "evaluate", runs / "estimated", "--terms", "5")
    assert answer(capsys, "evaluate", runs / "estimated", "-n", "9", "--terms", "30")["log_det"]["terms"] == 30
    assert "this one's is exact" in refused(capsys, "evaluate", runs / "moons", "--terms", "30")
    assert "expected --draws >= 1" in refused(capsys, "evaluate", runs / "moons", "--draws", "0")
    assert "expected -n >= 1" in refused(capsys, "evaluate", runs / "moons", "-n", "0")


def test_check_certifies(runs, capsys):
    found = answer(capsys, "check", runs / "moons")
    assert found["passed"]
    assert found["integral"] == pytest.approx(1, abs=1e-3)
    told = found["certificate"]
    assert told["certified"]
    assert told["norms_exact"]
    assert told["blocks"] == 2
    assert told["largest_layer_norm"] <= 0.9 + 1e-4
    assert told["largest_measured_slope"] <= told["largest_slope_bound"] <= 0.81 + 1e-3
    assert 1 <= told["iterations"] < 100
    main(["check", str(runs / "moons")])
    assert "2 residual blocks: certified invertible" in capsys.readouterr().out


def test_check_fails_what_is_no_contraction(runs):
    model = longflow.load(runs / "moons").double()
    x = torch.randn(5, 2, dtype=torch.float64)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, LipschitzLayer):
                layer.weight *= 3
    found = certificate(model, x)
    assert not found["certified"]
    assert found["largest_layer_norm"] > 1
    constrain(model)
    assert certificate(model, x)["certified"]


def test_check_takes_models_that_estimate_and_models_that_do_not_contract(runs, tmp_path, capsys):
    found = answer(capsys, "check", runs / "estimated", "-n", "3")
    assert found["passed"]
    assert found["dtypes"]["float64"]["log_det_max_abs"] < 1e-9
    broken = tmp_path / "broken"
    shutil.copytree(runs / "moons", broken)
    weights = load_file(broken / "model.safetensors")
    save_file({k: (6 * v if "linear" in k else v) for k, v in weights.items()}, broken / "model.safetensors")
    found = answer(capsys, "check", broken, status=1)
    assert found["certificate"]["certified"] is False
    assert answer(capsys, "evaluate", broken)["nats"] < 0
    assert main(["sample", str(broken)]) == 1
    assert "were its norms constrained" in capsys.readouterr().err


def test_weights_that_were_never_constrained_do_not_decode_in_silence():
    """Where g is too steep a root of x + g(x) = z need not be the only one: it may be far from x."""
    torch.manual_seed(0)
    flow = longflow.build("iresnet", shape=(2,), width=32)
    x = torch.cat((torch.randn(100, 2) - 4, torch.randn(100, 2) + 4))
    optimiser = torch.optim.Adam(flow.parameters(), 3e-2)
    for _ in range(60):
        optimiser.zero_grad()
        (-flow.log_prob(x).mean()).backward()
        optimiser.step()
    flow.eval()
    with torch.no_grad(), pytest.raises(InversionError, match="were its norms constrained"):
        flow.decode(flow.encode(x))
    constrain(flow)
    with torch.no_grad():
        close(flow.decode(flow.encode(x)), x, 1e-3)


def test_scores_of_levels_that_fit_the_run(runs, tmp_path, capsys):
    rows = tmp_path / "rows.npy"
    np.save(rows, np.random.default_rng(0).integers(0, 17, (4, 1, 8, 8), dtype=np.uint8))
    out = tmp_path / "scores.csv"
    assert answer(capsys, "score", runs / "estimated", rows, "--out", out)["n"] == 4
    assert out.read_text().startswith("log_prob,bits_per_dim,stderr\n")
    np.save(rows, np.full((4, 1, 8, 8), 30, dtype=np.uint8))
    assert "levels 17" in refused(capsys, "score", runs / "estimated", rows, "--out", tmp_path / "other.csv")


def test_bounds_that_are_too_loose_decide_nothing():
    torch.manual_seed(0)
    options = {"scales": 1, "blocks": 1, "width": 24, "depth": 1, "coefficient": 0.99}
    model = longflow.build("residualflow", shape=(5, 16, 16), exact_dims=8, **options).double().eval()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, LipschitzLayer):
                layer.weight.abs_().add_(0.1)
                layer.tighten()
    found = certificate(model, torch.randn(2, 5, 16, 16, dtype=torch.float64))
    assert not found["norms_exact"]
    assert found["largest_slope_bound"] > 1
    assert found["certified"] is None


def test_importance_samples_of_estimates_are_refused(runs, capsys, tmp_path):
    """The mean of exponentials of noisy estimates is biased upwards."""
    rows = tmp_path / "rows.npz"
    np.savez(rows, x=np.random.default_rng(0).integers(0, 17, (4, 1, 8, 8), dtype=np.uint8), levels=17)
    for command in (["evaluate", runs / "estimated"], ["score", runs / "estimated", rows]):
        assert "would be too good" in refused(capsys, *command, "--importance-samples", "5")


def test_a_hybrid_that_diverges_names_step_and_layer(capsys, tmp_path):
    flags = ["--classes", "10", "--lr", "1e30", "--warmup", "0", "--clip", "1e30", "--steps", "20", *BLOCKS]
    assert main(["train", "iresnet", "--out", str(tmp_path / "run"), *flags]) == 1
    assert "step" in capsys.readouterr().err


def test_rows_that_do_not_come_back_are_lost_alone(runs):
    model = longflow.load(runs / "moons").double()
    x = torch.randn(5, 2, dtype=torch.float64)
    x[3] = torch.nan
    trip = _trip(model, x)
    assert trip[3].isnan().all()
    close(trip[[0, 1, 2, 4]], torch.zeros(4, 2, dtype=torch.float64))


def test_a_classifier_learns_without_a_density(runs, capsys):
    found = answer(capsys, "evaluate", runs / "classifier")
    assert found["accuracy"].keys() == {"classifier"}
    assert found["accuracy"]["classifier"] > 0.5
    records = [json.loads(line) for line in (runs / "classifier" / "metrics.jsonl").read_text().splitlines()]
    assert 0 < records[-1]["validation_cross_entropy"] < 3
    assert "validation_bits_per_dim" not in records[-1]
    assert "classifier" in answer(capsys, "evaluate", runs / "hybrid")["accuracy"]


def test_kept_weights_meet_their_bound(runs):
    """At a high learning rate, without an average: after `constrain` alone norms here are up to 1.01 c."""
    layers = [m for m in longflow.load(runs / "steep").modules() if isinstance(m, LipschitzLayer)]
    norms = [layer.norm_bound() for layer in layers]
    assert all(exact for _, exact in norms)
    assert 0.999 < max(norm for norm, _ in norms) / 0.9 <= 1 + 1e-6


def test_kept_statistics_are_those_of_the_kept_weights(runs):
    model = longflow.load(runs / "steep")
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    rows = torch.from_numpy(longflow.data.load("digits").split("train"))
    with fixed_draws(0):
        settle(model, rows[torch.randperm(len(rows))[:ADAPT_ROWS]].float())
    moved = [name for name, value in model.state_dict().items() if not torch.equal(value, kept[name])]
    assert not [name for name in moved if not name.endswith((".mean", ".variance"))]
    norm = model.density.head[0]
    assert norm.variance.flatten().std() > 0.01
    for name, value in model.state_dict().items():
        close(value, kept[name], 1e-6)


COMMANDS = ["evaluate -n 20", "reconstruct", "sample", "latents", "interpolate", "check -n 3"]


@pytest.mark.parametrize("weight", ["0", "1"])
@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("iresnet", "--preset classifier --blocks 1 --width 4"),
        ("iresnet", "--head scales --scales 2 --padding 1 --blocks 1 --width 6"),
        ("residualflow", "--classes 10 --scales 2 --blocks 1 --width 6 --linear-blocks 1"),
        ("residualflow", "--classes 10 --head batch --blocks 1 --width 6"),
    ],
)
def test_every_head_goes_through_every_command(name, flags, weight, tmp_path, capsys):
    run = tmp_path / "run"
    settings = ["--label-weight", "1", "--density-weight", weight, "--threads", "1", "--evaluation-terms", "3"]
    classes = [] if "classe" in flags or "classifier" in flags else ["--classes", "10"]
    more = [*settings, *classes, *flags.split()]
    assert main(["train", name, "--steps", "4", "--out", str(run), *more]) == 0, capsys.readouterr().err
    for command in COMMANDS:
        head, *given = command.split()
        assert main([head, str(run), *given]) == 0, capsys.readouterr().err
    assert answer(capsys, "evaluate", run, "-n", "20")["accuracy"].keys() == {"classifier"}


def test_the_paper_classifier_sees_the_latent_normalised_by_batches():
    """BN, ReLU, mean over space, linear; in evaluation by what `settle` stored of noughts, not of noise, in padding."""
    torch.manual_seed(0)
    small = {"blocks": 1, "width": 4, "classes": 3}
    model = longflow.build("iresnet", shape=(1, 8, 8), preset="classifier", **small).double()
    x = torch.randn(40, 1, 8, 8, dtype=torch.float64)
    adapt(model, x)
    z = model.encode(x)
    settle(model, x)
    norm, last = model.head[0], model.head[-1]
    seen = Squeeze()(Squeeze()(z)[0])[0]
    assert seen.shape == (40, 224, 2, 2)
    mean, std = seen.mean((0, 2, 3), keepdim=True), seen.std((0, 2, 3), keepdim=True, correction=0)
    expected = ((seen - mean) / (std.square() + 1e-5).sqrt()).clamp_min(0).mean((2, 3)) @ last.weight.T + last.bias
    assert norm.scale.shape == (224,)
    close(model.logits(x), expected)
    close(model.eval().logits(x), expected)


@pytest.mark.parametrize("name", ["iresnet", "residualflow"])
def test_a_head_of_scales_sees_each_of_them_once_more_squeezed(name):
    torch.manual_seed(0)
    options = {"blocks": 1, "width": 4, "scales": 2, "classes": 3, "head": "scales"}
    options |= {"squeeze_first": False} if name == "iresnet" else {"linear_blocks": 1}
    model = longflow.build(name, shape=(1, 4, 4), **options).double().eval()
    x = torch.randn(5, 1, 4, 4, dtype=torch.float64)
    adapt(model, x)
    first = {}
    blocks = [m for m in model.modules() if isinstance(m, Residual)]
    hook = blocks[1].register_forward_pre_hook(lambda block, given: first.update(x=given[0]))
    z = model.encode(x)
    hook.remove()
    norm = next(m for m in model.bijection.modules() if isinstance(m, Under)).inner.parts[0]
    ends = [norm.inverse(first["x"])[0], Squeeze()(z)[0]]  # the first scale's end, squeezed, before the second's scale
    logits = model.head[0].bias
    for k, (branch, end) in enumerate(zip(model.branches, ends, strict=True)):
        assert end.shape == (5, 4, 2, 2)
        conv, norm = branch[0], branch[1]
        maps = F.conv2d(end, conv.weight, conv.bias, padding=1) * (3 * norm.s).exp() + norm.t
        means = maps.clamp_min(0).mean((2, 3))
        logits = logits + means @ model.head[0].weight[:, 256 * k : 256 * (k + 1)].T
    close(model.logits(x), logits)
    log_prob, beside = model.joint(x, torch.zeros(5, dtype=torch.long))
    close(beside, logits)
    close(log_prob, model.log_prob(x))
    assert torch.equal(model.predictions(z)["classifier"], logits.argmax(1))
    beside.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in (*model.branches.parameters(), *model.head.parameters()))


def test_heads_start_from_data():
    """The ActNorm of every scale's branch gives mean 0 and deviation 1."""
    torch.manual_seed(0)
    model = longflow.build("residualflow", shape=(1, 4, 4), blocks=1, width=4, classes=3)
    x = 3 + torch.randn(50, 1, 4, 4)
    adapt(model, x)
    found = []
    for branch in model.branches:
        branch[1].register_forward_hook(lambda layer, given, out: found.append(out))
    model.eval().logits(x)
    assert len(found) == 3
    for maps in found:
        close(maps.mean((0, 2, 3)), torch.zeros(256), 1e-4)
        close(maps.std((0, 2, 3), correction=0), torch.ones(256), 1e-3)


def test_weights_of_density_and_classifier_are_lambda():
    """λ = 0 trains no density; the gradient is that of both, weighed."""
    torch.manual_seed(0)
    model = longflow.build("iresnet", shape=(3,), classes=4, blocks=1, width=8)
    x, y = torch.randn(20, 3), torch.randint(4, (20,))
    losses = [next(ClassLikelihood(*w)(model, x, y))[1] for w in ((1.0, 0.0), (0.0, 1.0), (2.0, 3.0))]
    close(losses[2], 2 * losses[0] + 3 * losses[1], 1e-4)
    logits = model.logits(x)
    close(losses[0], torch.nn.functional.cross_entropy(logits, y) / math.log(2), 1e-5)
    close(losses[1], -model.log_prob(x).mean() / (3 * math.log(2)), 1e-5)
    close(model.joint(x, y)[1], logits)


@pytest.mark.parametrize("name", ["iresnet", "residualflow"])
@pytest.mark.parametrize(
    "option",
    [
        {"growth": 6},
        {"activation": "clipswish"},
        {"border": "periodic"},
        {"depth": 3},
        {"classes": 3, "head": "batch"},
        {"classes": 3, "head": "scales"},
    ],
)
@pytest.mark.parametrize("shape", [(3,), (2, 4, 4)])
def test_variants_are_exact_flows(name, option, shape):
    torch.manual_seed(0)
    model = longflow.build(name, shape=shape, blocks=1, width=6, **option).double().eval()
    x = torch.randn(4, *shape, dtype=torch.float64)
    with torch.no_grad():
        close(model.decode(model.encode(x)), x)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: model.bijection(row[None])[0][0].flatten()))(x)
    slogdet = torch.linalg.slogdet(jacobian.reshape(4, x[0].numel(), -1)).logabsdet
    close(model.log_prob(x), model.base.log_prob(model.encode(x)) + slogdet)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("shape", [(2,), (1, 4, 4)])
def test_padding_gives_a_bound_that_tightens(shape, classes):
    """An augmented flow: the mean over noise is below the marginal density, which many draws approach."""
    torch.manual_seed(0)
    options = {"blocks": 1, "width": 6, "padding": 2, "classes": classes}
    model = longflow.build("iresnet", shape=shape, **options).double().eval()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, LipschitzLayer):
                layer.weight *= 20
        constrain(model, 1e-6, 1000)
        assert (model.likelihood, model.shape) == ("lower bound", shape)
        assert model.latent_shape == (shape[0] + 2, *shape[1:])
        x = torch.randn(4, *shape, dtype=torch.float64)
        z = model.encode(x)
        assert z.shape == (4, *model.latent_shape)
        close(model.decode(z), x)
        lifted, log_det = model.bijection(model.lift(x))
        close(lifted, z)
        many = x.repeat_interleave(2000, 0)
        draws = model.log_prob(many).reshape(4, 2000)
        tight = draws.logsumexp(1) - math.log(2000)
        assert (draws.mean(1) < tight).all()
        close(model.bound(x, samples=50), tight, 1)
        drawn, log_prob = model.sample_and_log_prob(5)
        assert drawn.shape == (5, *shape)
        assert log_prob.isfinite().all()
        assert log_det.shape == (4,)
    if len(shape) == 1:
        axis = torch.linspace(-12, 12, 161, dtype=torch.float64)
        with torch.no_grad():
            mass = model.bound(torch.cartesian_prod(axis, axis), samples=60).exp().sum() * (24 / 160) ** 2
        assert mass.item() == pytest.approx(1, abs=0.02)


def test_padding_sees_preprocessing_on_data_alone():
    config = {"model": "iresnet", "options": {"blocks": 1, "width": 6, "padding": 3}, "shape": [1, 4, 4]}
    model = assemble({**config, "preprocess": "logit", "levels": 17}).double().eval()
    x = torch.randint(17, (5, 1, 4, 4)).double()
    assert torch.equal(model.decode(model.encode(x)), x)
    assert model.likelihood == "lower bound"
    assert model.sample(3).shape == (3, 1, 4, 4)
    assert model.scale_map().shape == (4, 4, 4)


@pytest.mark.parametrize("data", ["two-moons", "digits"])
def test_padded_models_go_through_every_command(data, tmp_path, capsys):
    run = tmp_path / "run"
    flags = ["--steps", "5", "--padding", "2", *BLOCKS]
    assert main(["train", "iresnet", "--data", data, "--out", str(run), *flags]) == 0
    commands = ["evaluate", "sample", "reconstruct", "interpolate", "check"]
    for command in [*commands, *(["latents", "resample --scales 0", "edit --attribute 1"] if data == "digits" else [])]:
        name, *more = command.split()
        assert main([name, str(run), *more]) == 0, capsys.readouterr().err
    assert answer(capsys, "evaluate", run)["likelihood"] == ("estimate" if data == "digits" else "lower bound")


@pytest.mark.parametrize("classes", [0, 3])
def test_scales_are_squeezed_between_and_widen(classes):
    torch.manual_seed(0)
    options = {"squeeze_first": False, "scales": 2, "blocks": 1, "width": 3, "widening": 4, "classes": classes}
    model = longflow.build("iresnet", shape=(2, 4, 4), **options).double().eval()
    inner = 8 if classes else 4
    layers = [[tuple(m.weight.shape) for m in b.layers()] for b in model.modules() if isinstance(b, Residual)]
    assert layers == [
        [(3, 2, 3, 3), (3, 3, 1, 1), (2, 3, 3, 3)],
        [(12, inner, 3, 3), (12, 12, 1, 1), (inner, 12, 3, 3)],
    ]
    x = torch.randn(4, 2, 4, 4, dtype=torch.float64)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: model.bijection(row[None])[0][0].flatten()))(x)
    slogdet = torch.linalg.slogdet(jacobian.reshape(4, 32, 32)).logabsdet
    close(model.log_prob(x), model.base.log_prob(model.encode(x)) + slogdet)
    close(model.decode(model.encode(x)), x)


def test_linear_blocks_end_a_residual_flow():
    sizes = [
        sum(p.numel() for p in longflow.build("residualflow", shape=(1, 4, 4), blocks=1, linear_blocks=k).parameters())
        for k in (0, 2)
    ]
    assert sizes[1] - sizes[0] > 2 * 2 * 16 * 128


def test_training_takes_up_where_it_stopped_bit_by_bit():
    """Norms are bounded after each step: the vectors of their power iterations are part of the state."""
    x = torch.randn(256, 4)
    objective, recipe = MaximumLikelihood(), Recipe(batch=64, lr=3e-2)
    batches = Batches(x, None, recipe.batch, 0)

    def state():
        torch.manual_seed(0)
        model = longflow.build("iresnet", shape=(4,), blocks=2, width=8, coefficient=0.5, roulette="poisson")
        return State(model, objective, recipe)

    def go(state, steps):
        for _ in train(state, objective, batches, recipe, 24, batches.steps_per_epoch):
            if state.step == steps:
                break

    whole, first, again = state(), state(), state()
    torch.manual_seed(5)
    go(whole, 24)
    torch.manual_seed(5)
    go(first, 11)
    again.load_state_dict(first.state_dict())
    go(again, 24)
    ends = (whole.model.state_dict(), again.model.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    norms = [layer.norm_bound()[0] for layer in whole.model.modules() if isinstance(layer, LipschitzLayer)]
    assert max(norms) == pytest.approx(0.5, rel=2e-3)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--coefficient", "1.0"], "0 < coefficient < 1"),
        (["--coefficient", "0"], "0 < coefficient < 1"),
        (["--activation", "swish"], "1.0998: it is no contraction; use 'lipswish'"),
        (["--terms", "0"], "terms >= 1"),
        (["--rate", "0"], "rate > 0"),
        (["--blocks", "0"], "blocks >= 1"),
        (["--density-weight", "0"], "--density-weight is for models of classes"),
        (["--classes", "10", "--density-weight", "0", "--label-weight", "0"], "both are 0"),
        (["--classes", "10", "--density-weight", "-1"], "weight of the density"),
        (["--classes", "10", "--head", "group"], "groups"),
        (["--widening", "0"], "widening >= 1"),
        (["--no-squeeze-first", "--scales", "2"], "expects squeeze_first of pictures of one channel"),
        (["--no-squeeze-first", "--scales", "6", "--classes", "10"], "can be halved 3 times"),
        (["--classes", "10", "--head", "batch", "--batch", "1"], "at least 2 rows in a batch"),
    ],
)
def test_bad_flags_are_told(flags, says, capsys, tmp_path):
    assert says in refused(capsys, "train", "iresnet", "--steps", "1", "--out", tmp_path / "run", *flags)
    assert not (tmp_path / "run").exists()


def test_bad_options_are_told():
    with pytest.raises(UsageError, match="lipswish"):
        longflow.build("iresnet", shape=(2,), activation="swish")
    with pytest.raises(UsageError, match="did you mean 'periodic'"):
        longflow.build("iresnet", shape=(2,), border="periodical")
    with pytest.raises(UsageError, match="not both"):
        longflow.build("iresnet", shape=(2,), classes=3, context=1)
    with pytest.raises(UsageError, match="at least 2 classes"):
        longflow.build("iresnet", shape=(2,), classes=1)
    with pytest.raises(UsageError, match="not both"):
        longflow.build("residualflow", shape=(2,), classes=3, context=1)
    with pytest.raises(UsageError, match="at least 2 classes"):
        longflow.build("residualflow", shape=(2,), classes=1)
    with pytest.raises(UsageError, match="did you mean 'scales'"):
        longflow.build("residualflow", shape=(2,), head="scale")
    with pytest.raises(UsageError, match="scales >= 1"):
        longflow.build("residualflow", shape=(1, 4, 4), scales=0)


def test_glow_without_a_density_is_refused(capsys, tmp_path):
    flags = ["--classes", "10", "--density-weight", "0", "--steps", "1", "--out", tmp_path / "run"]
    assert "expects a classifier beside" in refused(capsys, "train", "glow", *flags)
    assert not (tmp_path / "run").exists()


def test_evaluation_in_float64_agrees(runs):
    single, double = (evaluate(str(runs / "moons"), dtype=dtype)["nats"] for dtype in ("float32", "float64"))
    assert single == pytest.approx(double, abs=1e-4)
    assert np.isfinite(single)


def test_a_learned_prior_does_not_hide_the_scales():
    model = longflow.build("iresnet", shape=(2, 4, 4), scales=2, blocks=1, width=4, depth=1)
    assert model.scale_count == 2
    assert (model.scale_map() == 0).sum() == 16

"""The loop, its batches and its memory: a run taken up again is bit by bit the run that was not stopped."""

import copy
import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

from longflow.bijections import Affine, Inverse, Learned, adapt
from longflow.cli import main
from longflow.commands.configure import Settings
from longflow.commands.train import train_run
from longflow.distributions import Flow, StandardNormal
from longflow.errors import TrainingDivergedError, UsageError
from longflow.models import assemble, build
from longflow.objectives import MaximumLikelihood, NoisyLikelihood
from longflow.runs import Run
from longflow.training import Batches, Recipe, State, train
from longflow.training.early import Held, keep_best
from longflow.units import bits_per_dim

CONFIG = {
    "model": "nice",
    "options": {"hidden": 16, "depth": 1, "dropout": 0.3},
    "shape": (6,),
    "preprocess": "unit",
    "levels": 5,
}


def rows(n=50):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 5, (n, 6), dtype=np.uint8))


def fresh(recipe):
    torch.manual_seed(0)
    state = State(assemble(CONFIG), MaximumLikelihood(), recipe)
    torch.manual_seed(1)
    return state


def go(state, recipe, steps, total=40):
    batches = Batches(rows(), None, recipe.batch, seed=3)
    loop = train(state, MaximumLikelihood(), batches, recipe, total, batches.steps_per_epoch)
    return [p for p, _ in zip(loop, range(steps), strict=False)]


def bits_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_resume_is_bit_exact_in_the_middle_of_an_epoch(tmp_path, ema):
    recipe = Recipe(batch=8, ema=ema)
    whole = fresh(recipe)
    go(whole, recipe, 40)
    half = fresh(recipe)
    go(half, recipe, 13)
    run = Run.create(tmp_path / "run")
    run.write_checkpoint({"state": half.state_dict()})
    torch.manual_seed(99)
    other = State(assemble(CONFIG), MaximumLikelihood(), recipe)
    other.load_state_dict(run.checkpoint()["state"])
    go(other, recipe, 27)
    assert other.step == whole.step == 40
    assert same(bits_of(other.model), bits_of(whole.model))
    assert same(bits_of(other.best_weights), bits_of(whole.best_weights))


def test_the_noise_is_part_of_what_is_saved():
    """A state taken up without its generator goes elsewhere: the test above could fail."""
    recipe = Recipe(batch=8, ema=0.0)
    a = fresh(recipe)
    go(a, recipe, 3)
    saved = copy.deepcopy(a.state_dict())
    go(a, recipe, 3)
    saved["rng"]["cpu"] = torch.Generator().manual_seed(7).get_state()
    b = fresh(recipe)
    b.load_state_dict(saved)
    go(b, recipe, 3)
    assert not same(bits_of(a.model), bits_of(b.model))


def test_loss_falls_and_progress_counts():
    recipe = Recipe(batch=25, lr=1e-2, warmup=0, schedule="constant", ema=0.0)
    progress = go(fresh(recipe), recipe, 40)
    assert [p.step for p in progress] == list(range(1, 41))
    assert [p.epoch for p in progress[:4]] == [1, 1, 2, 2]
    assert progress[-1].loss < progress[0].loss - 0.1
    assert all(p.lr == 1e-2 for p in progress)


def test_batches_visit_every_row_once_an_epoch_and_shuffle_anew():
    numbered = torch.arange(20).reshape(20, 1)
    batches = Batches(numbered, None, 5, seed=0)
    first = torch.cat([batches(k)[0] for k in range(4)]).flatten().tolist()
    second = torch.cat([batches(k)[0] for k in range(4, 8)]).flatten().tolist()
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert batches(2)[0].flatten().tolist() == first[10:15]
    assert Batches(numbered, None, 5, seed=1)(0)[0].flatten().tolist() != first[:5]


def test_batches_share_a_batch_between_processes():
    numbered = torch.arange(24).reshape(24, 1)
    whole = Batches(numbered, None, 6, seed=0)(3)[0].flatten().tolist()
    parts = [Batches(numbered, None, 6, seed=0, rank=r, world=2)(3)[0].flatten().tolist() for r in range(2)]
    assert sorted(parts[0] + parts[1]) == sorted(whole)


def test_a_batch_that_cannot_be_shared_equally_is_refused():
    with pytest.raises(UsageError, match="4 processes"):
        Batches(torch.zeros(20, 1), None, 10, seed=0, world=4)


def test_batches_bring_their_context():
    numbered = torch.arange(8.0).reshape(8, 1)
    x, context = Batches(numbered, 10 * numbered, 4, seed=0)(0)
    assert torch.equal(context, 10 * x)


def test_lr_warms_up_and_anneals():
    recipe = Recipe(lr=1.0, warmup=10, schedule="cosine")
    lrs = [recipe.lr_at(k, 110) for k in range(110)]
    assert lrs[0] == pytest.approx(0.1)
    assert lrs[9] == lrs[10] == pytest.approx(1.0)
    assert lrs[60] == pytest.approx(0.5)
    assert 0 < lrs[-1] < 1e-3
    assert Recipe(lr=1.0, warmup=0, schedule="constant").lr_at(77, 100) == 1.0


def test_average_is_the_exponential_one():
    recipe = Recipe(batch=8, ema=0.9, warmup=0)
    state = fresh(recipe)
    expected = None
    batches = Batches(rows(), None, 8, seed=3)
    for count, _ in enumerate(train(state, MaximumLikelihood(), batches, recipe, 20, batches.steps_per_epoch)):
        now = bits_of(state.model)
        decay = 0.0 if expected is None else recipe.ema_at(count)
        expected = now if expected is None else {k: expected[k] + (1 - decay) * (now[k] - expected[k]) for k in now}
    for name, value in bits_of(state.best_weights).items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=0)


def test_gradients_are_clipped():
    recipe = Recipe(batch=25, lr=1.0, warmup=0, schedule="constant", clip=1e-12, eps=1.0, ema=0.0)
    state = fresh(recipe)
    before = bits_of(state.model)
    assert go(state, recipe, 1)[0].grad_norm > 1e-3
    for name, value in bits_of(state.model).items():
        torch.testing.assert_close(value, before[name], atol=1e-10, rtol=0)


def test_an_objective_plays_its_turns_in_order():
    """The named part steps before the next turn is asked for, and the others stay."""
    model = nn.ModuleDict({"critic": nn.Linear(1, 1, bias=False), "maker": nn.Linear(1, 1, bias=False)})
    seen = []

    class Game:
        parts = ("critic", "maker")

        def __call__(self, model, x, context, done):
            start = {name: part.weight.item() for name, part in model.items()}
            yield "critic", model["critic"](x).sum() + model["maker"](x).sum()
            seen.append({name: part.weight.item() != start[name] for name, part in model.items()})
            yield "maker", model["critic"](x).sum() + model["maker"](x).sum()
            seen.append({name: part.weight.item() != start[name] for name, part in model.items()})

    recipe = Recipe(batch=2, ema=0.0, warmup=0)
    state = State(model, Game(), recipe)
    list(train(state, Game(), lambda step: (torch.ones(2, 1), None), recipe, 1, 1))
    assert seen == [{"critic": True, "maker": False}, {"critic": True, "maker": True}]


def test_noisy_likelihood_draws_from_its_window():
    model = assemble({**CONFIG, "options": {"hidden": 4, "depth": 1}})
    seen = []
    model.density.bijection.register_forward_pre_hook(lambda m, args: seen.append(args[0].detach()))
    x = torch.zeros(500, 6)
    ((part, loss),) = NoisyLikelihood(-1.55, 1.0)(model, x, None)
    assert part == ""
    assert loss.isfinite()
    assert -1.55 <= seen[0].min() < -1.5
    assert 0.95 < seen[0].max() < 1.0


def test_maximum_likelihood_is_in_bits_per_dim():
    flow = Flow(Learned(Affine(), (2,)), StandardNormal((2,)))
    x = torch.randn(9, 2)
    ((_, loss),) = MaximumLikelihood()(flow, x, None)
    assert loss.item() == pytest.approx(bits_per_dim(flow.log_prob(x).mean().item(), 2), rel=1e-6)


def test_a_diverging_run_names_the_step_and_the_layer_and_keeps_the_weights():
    recipe = Recipe(batch=25, ema=0.0)
    state = fresh(recipe)
    with torch.no_grad():
        state.model.density.bijection.parts[1].parts[2].inner.conditioner.layers[0].weight[0, 0] = math.nan
    before = bits_of(state.model)
    with pytest.raises(TrainingDivergedError, match=r"step 1: .*parts\.2.*layers\.0"):
        go(state, recipe, 1)
    after = bits_of(state.model)
    assert all(torch.equal(before[k].nan_to_num(), after[k].nan_to_num()) for k in before)


def test_adapt_standardises_the_latent_and_is_taken_once():
    torch.manual_seed(0)
    flow = build("nice", (3,), hidden=8, depth=1)
    x = 5 * torch.randn(500, 3) + torch.tensor([1.0, -2.0, 3.0])
    adapt(flow, x)
    scaled = flow.encode(x)
    torch.testing.assert_close(scaled.std(0, correction=0), torch.full((3,), flow.base.deviation), atol=1e-4, rtol=0)
    kept = copy.deepcopy(flow.state_dict())
    flow.encode(100 * x)
    flow.sample(5)
    assert same(kept, flow.state_dict())


def test_adapt_says_which_layer_it_cannot_reach():
    with pytest.raises(UsageError, match="inner"):
        adapt(Inverse(Learned(Affine(), (2,))), torch.randn(5, 2))


def test_adapt_switches_dropout_off_and_leaves_the_mode_as_it_was():
    flow = build("nice", (2,), hidden=8, depth=1, dropout=0.9).train()
    seen = []
    flow.bijection.parts[0].register_forward_pre_hook(lambda m, args: seen.append(m.training))
    adapt(flow, torch.randn(9, 2))
    assert seen == [False]
    assert flow.training


def test_adapt_on_a_constant_feature_stays_finite_and_does_not_blow_it_up():
    layer = Learned(Affine(), (2,))
    adapt(layer, torch.cat((torch.ones(9, 1), torch.randn(9, 1)), 1))
    assert layer(torch.tensor([[1.5, 0.0]]))[0][0, 0].item() == pytest.approx(0.5)


@pytest.mark.parametrize(("x", "came"), [(torch.randn(1, 2), "1 came"), (torch.ones(9, 2), "9 equal ones came")])
def test_adapt_refuses_rows_that_do_not_differ(x, came):
    with pytest.raises(UsageError, match=came):
        adapt(Learned(Affine(), (2,)), x)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch", 0),
        ("lr", 0.0),
        ("lr", -1.0),
        ("ema", 1.0),
        ("clip", 0.0),
        ("beta2", 1.5),
        ("schedule", "cosin"),
        ("lr", math.nan),
    ],
)
def test_a_bad_recipe_is_refused(field, value):
    with pytest.raises(UsageError, match="cosine" if field == "schedule" else field):
        Recipe(**{field: value})


SCRIPT = """
import sys
import longflow.commands.train as t
t.SECONDS_BETWEEN_CHECKPOINTS = 0.05
from longflow.cli import main
from longflow.commands.configure import Settings
from longflow.commands.train import train_run
sys.exit(main(sys.argv[1:]))
"""


def test_kill_9_and_resume_ends_bit_identical(tmp_path):
    flags = ["train", "nice", "--data", "digits", "--hidden", "32", "--depth", "2", "--steps", "400", "--threads", "1"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(out, *more):
        return [sys.executable, "-c", SCRIPT, *flags, "--out", str(tmp_path / out), *more]

    subprocess.run(run("whole"), check=True, env=env, capture_output=True)
    checkpoint = tmp_path / "cut" / "checkpoint" / "last.pt"
    process = subprocess.Popen(run("cut"), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert Run(tmp_path / "cut").checkpoint()["state"]["step"] < 400
    subprocess.run(run("cut", "--resume"), check=True, env=env, capture_output=True)

    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    assert same(whole.weights(), cut.weights())
    a, b = whole.checkpoint()["state"], cut.checkpoint()["state"]
    assert same(a["model"], b["model"])
    assert same(a["average"], b["average"])
    timeless = [{k: v for k, v in r.items() if k != "rows_per_s"} for r in whole.metrics()]
    assert timeless == [{k: v for k, v in r.items() if k != "rows_per_s"} for r in cut.metrics()]
    assert json.loads(whole.report_file.read_text()) == json.loads(cut.report_file.read_text())


def torchrun(*flags):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "longflow"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *map(str, flags)], env=env, capture_output=True, text=True, timeout=120)


def test_torchrun_with_two_processes_ends_where_one_does(tmp_path):
    flags = ["train", "nice", "--data", "two-moons", "--hidden", "8", "--depth", "1", "--steps", "30", "--ema", "0"]
    done = torchrun(*flags, "--out", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert main([*flags, "--out", str(tmp_path / "one"), "--threads", "1"]) == 0
    one, two = Run(tmp_path / "one"), Run(tmp_path / "two")
    assert (two.path / "report.json").is_file()
    assert [r["step"] for r in two.metrics()] == [30]
    for name, weight in one.weights().items():
        torch.testing.assert_close(two.weights()[name], weight, atol=2e-4, rtol=0)


def test_torchrun_tells_the_users_mistake_and_does_not_hang(tmp_path):
    (tmp_path / "file").write_text("mine")
    done = torchrun("train", "nice", "--data", "two-moons", "--steps", "5", "--out", tmp_path)
    assert done.returncode != 0
    assert done.stderr.count("is not an empty folder") == 1
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


def test_torchrun_refuses_statistics_of_shares_of_a_batch(tmp_path):
    done = torchrun("train", "realnvp", "--data", "rings", "--norm", "batch", "--steps", "5", "--out", tmp_path / "x")
    assert done.returncode != 0
    assert "expects one process" in done.stderr
    assert not (tmp_path / "x").exists()


def test_patience_stops_a_run_and_resuming_it_changes_nothing(tmp_path):
    flags = ["train", "nice", "--data", "digits", "--hidden", "64", "--depth", "1", "--lr", "0.05", "--threads", "1"]
    flags += ["--steps", "2000", "--patience", "2", "--ema", "0", "--out", str(tmp_path / "run")]
    assert main(flags) == 0
    run = Run(tmp_path / "run")
    metrics = run.metrics()
    values = [r["validation_bits_per_dim"] for r in metrics]
    assert metrics[-1]["step"] < 2000
    assert min(values) == values[-3]
    weights = run.weights()
    assert main(["train", "nice", "--out", str(run.path), "--resume"]) == 0
    assert run.metrics() == metrics
    assert same(run.weights(), weights)


def test_a_compiled_step_trains_the_same_weights_and_resumes(tmp_path, monkeypatch):
    compiled = []

    def compile_eagerly(module, **how):
        compiled.append(module)
        how["backend"] = "eager"
        module._compiled_call_impl = torch.compile(module._call_impl, **how)

    monkeypatch.setattr(nn.Module, "compile", compile_eagerly)
    torch._dynamo.reset()

    def trained(name, steps, **settings):
        chosen = Settings(data="two-moons", steps=steps, out=str(tmp_path / name), threads=1, **settings)
        return train_run("nice", chosen, Recipe(batch=32), {"hidden": 8, "depth": 1}).checkpoint()["state"]["model"]

    plain, whole = trained("plain", 12), trained("whole", 12, compile=True)
    trained("half", 6, compile=True)
    half = trained("half", 12, compile=True, resume=True)
    assert len(compiled) == 3
    for name, value in plain.items():
        assert torch.equal(whole[name], half[name])
        torch.testing.assert_close(whole[name], value)
    with pytest.raises(UsageError, match="compile True; False came"):
        trained("half", 14, resume=True)


def test_a_compiled_model_that_diverges_names_the_layer():
    recipe = Recipe(batch=25, ema=0.0)
    state = fresh(recipe)
    torch._dynamo.reset()
    state.model.compile(backend="eager")
    with torch.no_grad():
        state.model.density.bijection.parts[1].parts[2].inner.conditioner.layers[0].weight[0, 0] = math.nan
    with pytest.raises(TrainingDivergedError, match=r"step 1: .*parts\.2.*layers\.0"):
        go(state, recipe, 1)


@pytest.mark.parametrize("model", ["vae", "infomax"])
def test_only_the_likelihood_is_compiled(model, tmp_path):
    chosen = Settings(data="digits", steps=2, out=str(tmp_path / "run"), compile=True)
    with pytest.raises(UsageError, match="--compile is for densities"):
        train_run(model, chosen, Recipe(), {})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("values", "patience", "best", "last"),
    [
        ([1.0, 3.0, math.nan, 2.0, 9.0], 2, 6, 12),
        ([1.0, 3.0, math.nan, 2.0, 2.5, 2.9, 2.0], 0, 6, 20),
        ([math.nan, -math.inf, -5.0, -6.0, -4.0, -9.0, -9.0], 3, 15, 20),
    ],
)
def test_the_weights_are_kept_that_were_best_and_staleness_ends_it(values, patience, best, last):
    """Validated after every third of 20 steps, and after the last."""
    recipe, told, seen = Recipe(batch=10, warmup=0), iter(values), {}

    def measure(model):
        assert not model.training
        seen[state.step] = bits_of(model)
        return next(told)

    def run():
        batches = Batches(rows(), None, recipe.batch, seed=3)
        return train(state, MaximumLikelihood(), batches, recipe, 20, batches.steps_per_epoch)

    state, held = fresh(recipe), Held()
    keep_best(held, state, run(), measure, (rows().float(), None), interval=3, steps=20, patience=patience, seed=0)
    assert held.validation == pytest.approx(values[: len(held.steps)], nan_ok=True)
    assert (held.best_step, held.steps[-1], list(seen)) == (best, last, held.steps)
    assert same(bits_of(state.model), seen[best])
    assert not any(same(seen[best], seen[step]) for step in seen if step != best)
    assert len(held.training) == len(held.steps)
    state, start = fresh(recipe), bits_of(fresh(recipe).model)
    keep_best(Held(), state, iter(()), measure, (rows().float(), None), interval=3, steps=20, patience=1, seed=0)
    assert same(bits_of(state.model), start)


def test_validations_draw_alike_and_leave_training_alone():
    recipe, drawn = Recipe(batch=10, warmup=0), []
    batches = Batches(rows(), None, recipe.batch, seed=3)

    def measure(model):
        drawn.append(torch.rand(()).item())
        return 0.0

    def weights(interval):
        torch.manual_seed(5)
        state = fresh(recipe)
        loop = train(state, NoisyLikelihood(0.0, 1.0), batches, recipe, 6, batches.steps_per_epoch)
        some = (rows().float(), None)
        keep_best(Held(), state, loop, measure, some, interval=interval, steps=6, patience=0, seed=7)
        return bits_of(state.best_weights)

    assert same(weights(2), weights(6))
    assert len(drawn) == 4
    assert len(set(drawn)) == 1

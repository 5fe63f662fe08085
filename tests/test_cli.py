"""The doors: every command end to end in a temporary directory, and every bad input met by one line and status 2."""

import dataclasses
import errno
import io
import json
import math
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from doors import answer
from PIL import Image

import longflow
import longflow.data
import longflow.models
from longflow.bijections import Chain, Coupling, Learned, Scale, Shift
from longflow.cli import COMMANDS, _condensed, fields_of, main
from longflow.commands.configure import Settings
from longflow.commands.evaluate import evaluate
from longflow.distributions import Flow, StandardNormal
from longflow.models import CATALOGUE, Model
from longflow.objectives import ELBO
from longflow.training import Recipe


class Copy(torch.nn.Module):
    def forward(self, x, context=None):
        return 1e4 * x


KEYS = {
    "model", "data", "data_sha256", "split", "n", "nats", "bits_per_dim", "stderr_bits_per_dim", "likelihood",
    "dequantiser", "importance_samples", "dtype", "roundtrip_max_abs",
}  # fmt: skip
SMALL = ["--hidden", "16", "--depth", "1", "--threads", "1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    table = folder / "table.csv"
    rows = np.random.default_rng(0).normal(size=(60, 3)) * [1, 5, 0.1] + [100, 0, 2]
    table.write_text("height,weight,age\n" + "\n".join(",".join(f"{v:.6f}" for v in row) for row in rows) + "\n")
    assert main(["train", "nice", "--steps", "30", "--out", str(folder / "digits"), *SMALL]) == 0
    assert main(["train", "nice", "--data", "two-moons", "--steps", "60", "--out", str(folder / "moons"), *SMALL]) == 0
    assert main(["train", "nice", "--data", str(table), "--steps", "20", "--out", str(folder / "table"), *SMALL]) == 0
    return folder


def said(capsys):
    captured = capsys.readouterr()
    return captured.out, captured.err


def width(found):
    with Image.open(found["out"]) as picture:
        return picture.width


def test_list_names_models_and_data(capsys):
    found = answer(capsys, "list")
    assert "nice" in found["models"]
    assert {"digits", "mnist", "fashion-mnist", "cifar10", "two-moons"} <= set(found["data"])
    assert main(["list"]) == 0
    assert "Dinh" in said(capsys)[0]


def test_a_run_directory_holds_what_the_house_says(runs):
    for name in ("digits", "moons", "table"):
        run = runs / name
        for file in (
            "config.json",
            "model.safetensors",
            "checkpoint/last.pt",
            "metrics.jsonl",
            "report.json",
            "report.html",
        ):
            assert (run / file).is_file(), file
        assert list((run / "samples").glob("*.png"))
        config = json.loads((run / "config.json").read_text())
        assert config["model"] == "nice"
        assert len(config["data"]["sha256"]) == 64
        assert config["command"].startswith("longflow train nice")
        assert not [f for f in run.rglob(".*")], "a temporary file was left"
        report = (run / "report.html").read_text()
        assert not re.search(r"(src|href)=\"https?:", report)
        assert set(json.loads((run / "report.json").read_text())) >= KEYS | {"baselines", "parameters"}
    weights = torch.load(runs / "digits" / "checkpoint" / "last.pt", weights_only=True)
    assert weights["state"]["step"] == 30


def test_evaluate(runs, capsys):
    digits = answer(capsys, "evaluate", runs / "digits")
    assert set(digits) == KEYS
    assert (digits["n"], digits["likelihood"], digits["dequantiser"]) == (360, "lower bound", "uniform")
    assert digits["bits_per_dim"] == pytest.approx(-digits["nats"] / 64 / np.log(2))
    report = json.loads((runs / "digits" / "report.json").read_text())
    assert {k: report[k] for k in KEYS} == digits
    assert answer(capsys, "evaluate", runs / "digits") == digits
    tighter = answer(capsys, "evaluate", runs / "digits", "--importance-samples", 8)
    assert tighter["bits_per_dim"] < digits["bits_per_dim"]
    double = answer(capsys, "evaluate", runs / "digits", "--dtype", "float64", "--split", "validation")
    assert double["roundtrip_max_abs"] < 1e-9
    assert double["n"] == 180
    moons = answer(capsys, "evaluate", runs / "moons")
    assert (moons["likelihood"], moons["dequantiser"]) == ("exact", None)


def test_evaluate_agrees_with_python(runs, capsys):
    moons = answer(capsys, "evaluate", runs / "moons")
    model = longflow.load(runs / "moons")
    test = torch.from_numpy(longflow.data.load("two-moons").split("test"))
    assert moons["nats"] == pytest.approx(model.log_prob(test).mean().item(), abs=1e-5)


def test_table_units_are_the_columns(runs, capsys):
    """Standardising happens inside: samples come in the units of the file, and so does the density."""
    out = runs / "rows.csv"
    assert answer(capsys, "sample", runs / "table", "-n", 400, "--temperature", 1, "--out", out)["n"] == 400
    lines = out.read_text().splitlines()
    assert lines[0] == "height,weight,age"
    drawn = np.loadtxt(lines[1:], delimiter=",")
    assert drawn.shape == (400, 3)
    assert abs(drawn[:, 0].mean() - 100) < 1
    assert drawn[:, 1].std() > 10 * drawn[:, 2].std()


def test_sample_writes_pictures_and_arrays(runs, capsys):
    one = answer(capsys, "sample", runs / "digits", "-n", 4)
    assert width(one) > 64
    two = answer(capsys, "sample", runs / "digits", "-n", 4, "--temperature", 0.5, 1.0)
    assert width(two) > width(one)
    for seed, name in ((0, "a.npz"), (0, "b.npz"), (1, "c.npz")):
        answer(capsys, "sample", runs / "digits", "-n", 5, "--seed", seed, "--out", runs / name)
    a, b, c = (np.load(runs / name)["x"] for name in ("a.npz", "b.npz", "c.npz"))
    assert a.shape == (5, 1, 8, 8)
    assert a.dtype == np.uint8
    assert a.max() <= 16
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert width(answer(capsys, "sample", runs / "moons")) > 64


def test_reconstruct_returns_the_data(runs, capsys):
    assert answer(capsys, "reconstruct", runs / "digits")["max_abs"] == 0
    assert answer(capsys, "reconstruct", runs / "moons", "-n", 100)["max_abs"] < 1e-4


def test_interpolate_begins_and_ends_in_data(runs, capsys):
    out = runs / "line.npz"
    answer(capsys, "interpolate", runs / "digits", "--pairs", 2, "--points", 5, "--out", out)
    line = np.load(out)["x"].reshape(2, 5, 1, 8, 8)
    test = longflow.data.load("digits").split("test")
    ends = line[:, [0, -1]].reshape(-1, 64)
    assert all((test.reshape(-1, 64) == end).all(1).any() for end in ends)
    assert width(answer(capsys, "interpolate", runs / "digits")) > 64


@pytest.mark.parametrize("mask", ["top", "bottom", "left", "right", "random75", "random90"])
def test_inpaint_climbs_and_holds_what_is_seen(runs, capsys, mask):
    found = answer(capsys, "inpaint", runs / "digits", "--mask", mask, "-n", 2, "--steps", 60)
    assert found["log_prob"]["filled in"] > found["log_prob"]["start"]
    assert (found["likelihood"], found["importance_samples"]) == ("exact", 1)
    assert width(found) > 64


def test_inpaint_says_when_it_falls(runs, capsys, monkeypatch):
    from longflow.commands import inpaint

    def worse(model, original, hidden, *, steps, rate):
        return original + 0.5, 17 * torch.rand_like(original)

    monkeypatch.setattr(inpaint, "ascend", worse)
    assert main(["inpaint", str(runs / "digits"), "-n", "2"]) == 0
    assert "lower --rate" in said(capsys)[1]


def test_masks_hide_what_they_say():
    from longflow.commands.inpaint import ascend, hide

    x = torch.zeros(200, 1, 4, 4)
    assert hide("top", x)[0, 0].tolist() == [[True] * 4, [True] * 4, [False] * 4, [False] * 4]
    assert hide("right", x)[0, 0, 0].tolist() == [False, False, True, True]
    assert torch.equal(hide("top", x), ~hide("bottom", x))
    assert torch.equal(hide("left", x), ~hide("right", x))
    assert abs(hide("random90", x).float().mean().item() - 0.9) < 0.02
    config = {
        "model": "nice",
        "options": {"hidden": 8, "depth": 1},
        "shape": [1, 4, 4],
        "preprocess": "unit",
        "levels": 9,
    }
    model = longflow.models.assemble(config)
    original = torch.randint(9, (3, 1, 4, 4)).float()
    hidden = hide("bottom", original)
    _, result = ascend(model, original, hidden, steps=20, rate=1.0)
    assert torch.equal(result.floor()[~hidden], original[~hidden])


def test_check_passes_and_integrates(runs, capsys):
    found = answer(capsys, "check", runs / "moons")
    assert found["passed"]
    assert found["integral"] == pytest.approx(1, abs=1e-3)
    assert found["dtypes"]["float64"]["log_det_max_abs"] < 1e-9
    assert found["dtypes"]["float32"]["round_trip_max_abs"]["data"] < 1e-4
    assert answer(capsys, "check", runs / "digits")["passed"]


def test_check_measures_each_column_in_its_own_units(runs, capsys):
    found = answer(capsys, "check", runs / "table")["dtypes"]["float64"]
    absolute, relative = found["round_trip_max_abs"]["data"], found["round_trip_in_sd"]["data"]
    assert absolute < 1e-11
    assert relative < 1e-11
    assert relative != absolute
    assert found["non_finite"]["wide Gaussian noise"] == 0


def test_check_fails_on_numbers_that_are_not_finite(runs, monkeypatch):
    from longflow.commands import check as module

    calls = []

    def broken(flow, x):
        calls.append(x)
        return torch.tensor(math.nan if len(calls) % 2 == 0 else 0.0)

    monkeypatch.setattr(module, "_log_det_error", broken)
    assert not module.check(str(runs / "moons"))["passed"]


def test_check_fails_when_one_sample_does_not_come_back(runs, monkeypatch):
    from longflow.commands import check as module

    decode = Flow.decode

    def broken(self, z, context=None):
        x = decode(self, z, context)
        x[1] = math.nan
        return x

    monkeypatch.setattr(Flow, "decode", broken)
    assert not module.check(str(runs / "moons"))["passed"]


def test_check_says_when_the_grid_is_too_coarse_and_is_reproducible(runs):
    from longflow.commands.check import check
    from longflow.commands.integral import integral

    ridge = Flow(Chain(Learned(Scale(), (2,)), Coupling(Shift(), Copy())), StandardNormal((2,)))
    with torch.no_grad():
        ridge.bijection.parts[0].theta.fill_(9.0)
    assert not integral(ridge.double(), torch.randn(9, 2).double())[1]
    assert check(str(runs / "moons"), seed=3) == check(str(runs / "moons"), seed=3)


def test_check_fails_a_flow_that_lies(runs, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(Scale, "ahead", lambda self, x, theta: (x * theta[0].exp(), theta[0] + 1e-3))
    assert main(["check", str(runs / "moons")]) == 1
    assert "FAILED" in said(capsys)[0]


def test_score_writes_a_row_for_each_row(runs, capsys):
    table = runs / "table.csv"
    found = answer(capsys, "score", runs / "table", table, "--out", runs / "scores.csv")
    lines = (runs / "scores.csv").read_text().splitlines()
    assert lines[0] == "log_prob,bits_per_dim"
    scores = np.loadtxt(lines[1:], delimiter=",")
    rows = torch.from_numpy(np.loadtxt(table, delimiter=",", skiprows=1)).float()
    with torch.no_grad():
        np.testing.assert_allclose(scores[:, 0], longflow.load(runs / "table").log_prob(rows), atol=1e-4)
    assert found["n"] == 60


def test_columns_are_found_by_their_names(runs, capsys, tmp_path):
    table = reordered(runs, tmp_path)
    assert table.read_text().startswith("age,height,weight")
    own, other = (answer(capsys, "evaluate", runs / "table", "--data", data) for data in (runs / "table.csv", table))
    assert own["nats"] == other["nats"]
    assert own["data_sha256"] == other["data_sha256"]
    rows = [
        answer(capsys, "score", runs / "table", data, "--out", tmp_path / f"{data.stem}.out.csv")
        for data in (runs / "table.csv", table)
    ]
    assert rows[0]["mean_log_prob"] == rows[1]["mean_log_prob"]
    assert (tmp_path / "r.out.csv").read_text() == (tmp_path / "table.out.csv").read_text()
    checked = [answer(capsys, "check", runs / "table", "--data", data) for data in (runs / "table.csv", table)]
    assert checked[0] == checked[1]


def test_a_small_folder_of_pictures_trains_to_a_report(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for k, picture in enumerate(np.random.default_rng(0).integers(0, 255, (12, 6, 6), dtype=np.uint8)):
        Image.fromarray(picture).save(tmp_path / "in" / f"{k}.png")
    out = tmp_path / "run"
    assert main(["train", "nice", "--data", str(tmp_path / "in"), "--steps", "2", "--out", str(out), *SMALL]) == 0
    told = said(capsys)[0]
    assert "nice on 1 test event" in told
    assert "nan" not in told
    assert (out / "report.html").is_file()
    assert json.loads((out / "report.json").read_text())["stderr_bits_per_dim"] is None
    assert ">nan" not in (out / "report.html").read_text()
    assert "± nan" not in (out / "report.html").read_text()
    one = answer(capsys, "evaluate", out)
    assert (one["n"], one["stderr_bits_per_dim"]) == (1, None)
    assert evaluate(str(out))["stderr_bits_per_dim"] is None
    assert main(["evaluate", str(out)]) == 0
    assert "±" not in said(capsys)[0]


def test_more_columns_than_rows_and_collinear_columns_have_no_gaussian(tmp_path, capsys):
    rows = np.random.default_rng(0).normal(size=(30, 40))
    np.save(tmp_path / "wide.npy", rows)
    np.save(tmp_path / "collinear.npy", np.column_stack([rows[:, :2], rows[:, 0] + rows[:, 1]]))
    for name in ("wide", "collinear"):
        flags = ["--data", tmp_path / f"{name}.npy", "--steps", 2, "--out", tmp_path / name]
        assert answer(capsys, "train", "nice", *flags, *SMALL)["baselines"] == {}


def test_column_names_survive_commas(tmp_path, capsys):
    rows = np.random.default_rng(0).normal(size=(30, 2))
    text = '"height, cm",b\n' + "\n".join(f"{a},{b}" for a, b in rows) + "\n"
    (tmp_path / "t.csv").write_text(text)
    answer(capsys, "train", "nice", "--data", tmp_path / "t.csv", "--steps", 2, "--out", tmp_path / "run", *SMALL)
    answer(capsys, "sample", tmp_path / "run", "-n", 3, "--out", tmp_path / "new.csv")
    assert (tmp_path / "new.csv").read_text().splitlines()[0] == '"height, cm",b'
    assert answer(capsys, "sample", tmp_path / "run", "-n", 3)["temperature"] == [1.0]


def test_report_is_made_anew(runs, capsys):
    (runs / "digits" / "report.html").unlink()
    assert answer(capsys, "report", runs / "digits")["report"].endswith("report.html")


def test_presets_and_requantised_levels(tmp_path, capsys):
    out = tmp_path / "run"
    flags = ["--preset", "essay", "--levels", "2", "--steps", "3", "--noise", "-0.5", "1", *SMALL]
    assert answer(capsys, "train", "nice", *flags, "--out", out)["bits_per_dim"] > 0
    config = json.loads((out / "config.json").read_text())
    assert config["options"]["last"] == "relu"
    assert config["options"]["hidden"] == 16
    assert config["levels"] == 2
    assert config["noise"] == [-0.5, 1.0]
    assert answer(capsys, "evaluate", out)["n"] == 360


def test_resume_takes_flags_from_the_run_and_refuses_others(tmp_path, capsys):
    out = str(tmp_path / "run")
    assert main(["train", "nice", "--data", "two-moons", "--steps", "10", "--lr", "0.002", "--out", out, *SMALL]) == 0
    metrics = tmp_path / "run" / "metrics.jsonl"
    lost = json.loads(metrics.read_text()) | {"step": 15}
    with metrics.open("a") as f:
        f.write(json.dumps(lost) + '\n{"step": 1')  # logged after the checkpoint, and cut short, by a crash
    assert main(["train", "nice", "--out", out, "--resume", "--steps", "20"]) == 0
    assert [json.loads(line)["step"] for line in metrics.read_text().splitlines()] == [10, 20]
    said(capsys)
    for flags, says in (
        (["--lr", "0.1"], "lr 0.002; 0.1 came"),
        (["--steps", "5"], "20 steps already"),
        (["--preset", "essay"], "came"),
        (["--preset", "esay"], "did you mean 'essay'"),
        (["--hidden", "9"], "hidden 16; 9 came"),
    ):
        assert main(["train", "nice", "--out", out, "--resume", *flags]) == 2
        assert says in said(capsys)[1]
    config = tmp_path / "run" / "config.json"
    before = json.loads(config.read_text())
    assert before["steps"] == 20
    config.write_text(json.dumps(before | {"options": {k: v for k, v in before["options"].items() if k != "hidden"}}))
    assert main(["train", "nice", "--out", out, "--resume", "--steps", "30"]) == 2
    assert "without the option hidden of nice" in said(capsys)[1]
    config.write_text(json.dumps(before))
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    assert main(["train", "nice", "--out", out, "--resume"]) == 2
    assert "checkpoint is gone" in said(capsys)[1]


def test_a_command_can_be_given_again_with_resume(tmp_path, capsys):
    """As `make demo` does: the run is finished, so only its report is made again."""
    flags = ["train", "nice", "--preset", "digits", "--hidden", "8", "--steps", "3", "--out", str(tmp_path / "run")]
    assert main(flags) == 0
    before = said(capsys)[0]
    assert main([*flags, "--resume"]) == 0
    assert said(capsys)[0] == before


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    command = [
        sys.executable,
        "-m",
        "longflow",
        "train",
        "nice",
        "--steps",
        "100000",
        "--out",
        str(tmp_path / "run"),
        *SMALL,
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while (
        not (tmp_path / "run" / "metrics.jsonl").read_text() if (tmp_path / "run" / "metrics.jsonl").exists() else True
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert (tmp_path / "run" / "checkpoint" / "last.pt").is_file()


def test_a_diverging_run_stops_with_status_1(tmp_path, capsys):
    assert main(["train", "nice", "--lr", "1e30", "--warmup", "0", "--out", str(tmp_path / "run"), *SMALL]) == 1
    _, err = said(capsys)
    assert re.search(r"step \d+: loss .*layer|gradient", err)
    assert "last good checkpoint" in err
    assert (tmp_path / "run" / "checkpoint" / "last.pt").is_file()


def test_help_of_every_command(capsys):
    assert main(["--help"]) == 0
    usage = said(capsys)[0]
    assert all(f"  {name} " in usage for name in ["train", *COMMANDS])
    for name in ["train", *COMMANDS]:
        arguments = [name, "nice", "--help"] if name == "train" else [name, "--help"]
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
        assert "--json" in said(capsys)[0]


LAST = "checkpoint/last.pt"


def damaged(runs, tmp_path, file, change):
    copy = tmp_path / "copy"
    shutil.copytree(runs / "digits", copy)
    (copy / file).write_bytes(change((copy / file).read_bytes()))
    return str(copy)


def narrower(config):
    return config.replace(b'"hidden": 16', b'"hidden": 8')


def saved(state):
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


def by_hand(tmp_path):
    longflow.build("nice", (2,), hidden=4, depth=1).save(tmp_path / "hand")
    return str(tmp_path / "hand")


def reordered(runs, tmp_path):
    lines = [line.split(",") for line in (runs / "table.csv").read_text().splitlines()]
    (tmp_path / "r.csv").write_text("\n".join(",".join([c, a, b]) for a, b, c in lines))
    return tmp_path / "r.csv"


def renamed(runs, tmp_path):
    (tmp_path / "n.csv").write_text((runs / "table.csv").read_text().replace("age", "agee"))
    return tmp_path / "n.csv"


def flags_of_training(model):
    """The names of all that `train MODEL` takes, those that come twice twice; shape, levels and context are data's."""
    own = [name for name, *_ in fields_of(model.builder) if name not in ("shape", "levels", "context")]
    aims = [name for name, *_ in fields_of(model.objective)] if model.objective else []
    shared = [field.name for kind in (Settings, Recipe) for field in dataclasses.fields(kind)]
    return [*own, *aims, *shared, "json", "debug", "help", "version"]


def resume(run):
    return ["train", "nice", "--resume", "--out", run]


@pytest.mark.parametrize("name", CATALOGUE)
def test_no_option_of_a_model_has_the_name_of_another_flag(name):
    flags = flags_of_training(CATALOGUE[name])
    assert [flag for flag in flags if flags.count(flag) > 1] == []


def test_a_flag_that_comes_twice_would_be_seen():
    def model(shape: tuple[int, ...], *, context: int = 0, width: int = 8, clip: float = 1.0, beta: float = 2.0):
        """Build nothing."""

    flags = flags_of_training(Model(model, "a model of clashes", {}, {}, ELBO))
    assert {flag for flag in flags if flags.count(flag) > 1} == {"clip", "beta"}


def test_a_complaint_is_one_line_in_any_terminal():
    """tyro draws a box around it, or rules of hyphens where a terminal has none but the characters of ASCII."""
    told, rule = "invalid choice 'lime' for argument '--path'. Expected one of ('line', 'arc').", 40 * "-"
    plain = [
        " Invalid choice   ",
        f" {rule} ",
        f"  {told} ",
        f"  {rule}",
        "  For full helptext, run longflow interpolate --help ",
        "",
    ]
    boxed = [
        "╭─ Invalid choice ─────╮",
        *(f"│ {line} │" for line in (told[:-1], ".", 40 * "─", "For full ...")),
        "╰──╯",
    ]
    for box in (plain, boxed):
        assert _condensed("\n".join(box), "interpolate") == (
            "invalid choice 'lime' for argument '--path'. Expected one of ('line', 'arc'); did you mean 'line'?"
            " (see longflow interpolate --help)"
        )


BAD = {
    "no command": (lambda r, t: ["trian"], "did you mean 'train'"),
    "unknown model": (lambda r, t: ["train", "nise"], "did you mean 'nice'"),
    "unknown data": (lambda r, t: ["train", "nice", "--data", "digist", "--out", t / "x"], "digits"),
    "unknown flag": (lambda r, t: ["train", "nice", "--epoch", "3"], "did you mean --epochs"),
    "not a number": (lambda r, t: ["train", "nice", "--epochs", "three"], "three"),
    "no steps": (lambda r, t: ["train", "nice", "--steps", "0", "--out", t / "x"], "--steps >= 1"),
    "no epochs": (lambda r, t: ["train", "nice", "--epochs", "0", "--out", t / "x"], "--epochs >= 1"),
    "both": (lambda r, t: ["train", "nice", "--epochs", "1", "--steps", "1", "--out", t / "x"], "not both"),
    "run exists": (lambda r, t: ["train", "nice", "--out", r / "digits"], "already holds a run"),
    "folder exists": (lambda r, t: ["train", "nice", "--out", r], "already exists"),
    "nothing to resume": (lambda r, t: ["train", "nice", "--out", t / "none", "--resume"], "none at"),
    "unwritable": (lambda r, t: ["train", "nice", "--steps", "1", "--out", "/proc/none/run"], "/proc/none"),
    "full disk": (lambda r, t: ["sample", r / "digits", "--out", "/proc/a.png"], "cannot read or write"),
    "bad device": (lambda r, t: ["train", "nice", "--device", "gpu", "--out", t / "x"], "device 'gpu'"),
    "threads": (lambda r, t: ["train", "nice", "--threads", "0", "--out", t / "x"], "--threads >= 1"),
    "lr": (lambda r, t: ["train", "nice", "--lr", "-1", "--out", t / "x"], "lr > 0"),
    "option": (lambda r, t: ["train", "nice", "--couplings", "0", "--out", t / "x"], "couplings >= 1"),
    "preset": (lambda r, t: ["train", "nice", "--preset", "esay", "--out", t / "x"], "did you mean 'essay'"),
    "levels": (lambda r, t: ["train", "nice", "--levels", "300", "--out", t / "x"], "17"),
    "noise": (lambda r, t: ["train", "nice", "--data", "rings", "--noise", "0", "1", "--out", t / "x"], "levels"),
    "logit": (lambda r, t: ["train", "nice", "--data", "rings", "--preprocess", "logit", "--out", t / "x"], "levels"),
    "no such run": (lambda r, t: ["evaluate", t / "none"], "config.json"),
    "split": (lambda r, t: ["evaluate", r / "digits", "--split", "tets"], "tets"),
    "samples": (lambda r, t: ["evaluate", r / "digits", "--importance-samples", "0"], ">= 1"),
    "other data": (lambda r, t: ["evaluate", r / "digits", "--data", "two-moons"], "shape"),
    "temperature": (lambda r, t: ["sample", r / "digits", "--temperature", "-1"], "temperature >= 0"),
    "too many": (lambda r, t: ["sample", r / "digits", "-n", "1000000000000"], "at most"),
    "several in a table": (lambda r, t: ["sample", r / "table", "--temperature", "1", "2"], "one temperature"),
    "table exists": (lambda r, t: ["sample", r / "table", "--out", r / "table.csv"], "already exists"),
    "seed": (lambda r, t: ["train", "nice", "--seed", "-1", "--out", t / "x"], "a seed of 0 to"),
    "seed of draws": (lambda r, t: ["interpolate", r / "digits", "--seed", "-1"], "a seed of 0 to"),
    "seed of noise": (lambda r, t: ["evaluate", r / "digits", "--seed", "-1"], "a seed of 0 to"),
    "seed of samples": (lambda r, t: ["quality", r / "digits", "-n", "100", "--seed", "-1"], "a seed of 0 to"),
    "patience": (lambda r, t: ["train", "nice", "--patience", "-3", "--out", t / "x"], "--patience >= 0; -3"),
    "weight of no classes": (
        lambda r, t: ["train", "nice", "--label-weight", "7", "--out", t / "x"],
        "--label-weight is for models of classes",
    ),
    "weight of another objective": (
        lambda r, t: ["train", "cvae", "--label-weight", "7", "--out", t / "x"],
        "trained by its own objective",
    ),
    "choice": (lambda r, t: ["interpolate", r / "digits", "--path", "lime"], "did you mean 'line'?"),
    "huge seed": (lambda r, t: ["evaluate", r / "digits", "--seed", str(2**70)], "seed"),
    "no events": (lambda r, t: ["reconstruct", r / "digits", "-n", "0"], "-n >= 1"),
    "meta device": (lambda r, t: ["evaluate", r / "digits", "--device", "meta"], "device 'meta'"),
    "columns": (lambda r, t: ["evaluate", r / "table", "--data", renamed(r, t)], "did you mean 'age'"),
    "score shape": (lambda r, t: ["score", r / "moons", r / "table.csv"], "shape"),
    "score nothing": (lambda r, t: ["score", r / "moons", r / "none.csv"], "none.csv"),
    "empty checkpoint": (lambda r, t: resume(damaged(r, t, LAST, lambda b: b"")), "damaged"),
    "other checkpoint": (lambda r, t: resume(damaged(r, t, LAST, lambda b: saved({"log": {}}))), "not a checkpoint"),
    "resume by hand": (lambda r, t: resume(by_hand(t)), "not trained here"),
    "no samples": (lambda r, t: ["sample", r / "digits", "-n", "0"], "-n >= 1"),
    "label": (lambda r, t: ["sample", r / "digits", "--label", "3"], "class"),
    "suffix": (lambda r, t: ["sample", r / "digits", "--out", t / "x.gif"], ".png"),
    "pairs": (lambda r, t: ["interpolate", r / "digits", "--pairs", "500"], "--pairs"),
    "part": (lambda r, t: ["check", r / "moons", "--part", "prior"], "models within which a flow is a part"),
    "samples of what is exact": (
        lambda r, t: ["evaluate", r / "moons", "--importance-samples", "2"],
        "--importance-samples is for likelihoods that are bounds",
    ),
    "draws of what is exact": (lambda r, t: ["evaluate", r / "table", "--draws", "1"], "--draws is for likelihoods"),
    "scores of what is exact": (
        lambda r, t: ["score", r / "table", r / "table.csv", "--importance-samples", "3"],
        "--importance-samples is for likelihoods that are bounds",
    ),
    "mask": (lambda r, t: ["inpaint", r / "digits", "--mask", "topp"], "topp"),
    "inpaint a table": (lambda r, t: ["inpaint", r / "moons"], "pictures"),
    "truncated checkpoint": (lambda r, t: resume(damaged(r, t, LAST, lambda b: b[: len(b) // 2])), "damaged"),
    "pickled checkpoint": (lambda r, t: resume(damaged(r, t, LAST, lambda b: pickle.dumps(main))), "damaged"),
    "truncated weights": (lambda r, t: ["evaluate", damaged(r, t, "model.safetensors", lambda b: b[:-9])], "damaged"),
    "config of another": (lambda r, t: ["evaluate", damaged(r, t, "config.json", narrower)], "another model"),
    "broken config": (lambda r, t: ["evaluate", damaged(r, t, "config.json", lambda b: b[:40])], "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_status_2(case, runs, tmp_path, capsys):
    make, says = BAD[case]
    arguments = [str(a) for a in make(runs, tmp_path)]
    assert main(arguments) == 2
    out, err = said(capsys)
    assert out == ""
    assert err.startswith("longflow: ")
    assert err.count("\n") == 1
    assert says in err
    assert not (tmp_path / "x").exists(), "nothing is left behind"


def test_bad_input_leaves_the_run_as_it_was(runs, capsys):
    before = {f: f.read_bytes() for f in (runs / "digits").rglob("*") if f.is_file()}
    main(["train", "nice", "--out", str(runs / "digits")])
    main(["train", "nice", "--out", str(runs / "digits"), "--resume", "--hidden", "99"])
    said(capsys)
    assert before == {f: f.read_bytes() for f in (runs / "digits").rglob("*") if f.is_file()}


def test_a_full_disk_is_told_and_keeps_what_was_there(runs, tmp_path, monkeypatch, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(runs / "moons", copy)
    before = {f: f.read_bytes() for f in copy.rglob("*") if f.is_file()}

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("longflow.files.os.fsync", full)
    assert main([*resume(str(copy)), "--steps", "90"]) == 2
    _, err = said(capsys)
    assert "No space left" in err.splitlines()[-1]
    assert {f: f.read_bytes() for f in copy.rglob("*") if f.is_file()} == before


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="nise"):
        main(["train", "nise", "--debug"])

"""What one does with a multi-scale model of pictures: classes, scales, attribute directions; and bad input."""

import json
import shutil

import numpy as np
import pytest
import torch
from doors import answer
from safetensors.torch import load_file, save_file

import longflow
import longflow.data
from longflow.cli import main
from longflow.commands.scales import redrawn

ROWS = {"train": 150, "test": 40}


def table(rows, names, path):
    path.write_text("\n".join([",".join(names), *(",".join(map(str, row)) for row in rows)]) + "\n")


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """Dark pictures (class 0) and light ones (class 1), with a bar on the left or the right, and a table of bars."""
    folder = tmp_path_factory.mktemp("bars")
    random = np.random.default_rng(0)
    arrays, lines = {}, []
    for split, n in ROWS.items():
        light, right = random.integers(2, size=(2, n))
        x = random.integers(0, 40, size=(n, 1, 8, 8)) + 80 * light[:, None, None, None]
        x[np.arange(n), 0, :, np.where(right, 5, 1)] += 120
        arrays |= {split: x.astype(np.uint8), f"{split}_labels": light}
        lines += [[len(lines) + k, int(bar), k % 3 - 1] for k, bar in enumerate(right)]
    np.savez(folder / "bars.npz", **arrays)
    np.savez(folder / "bare.npz", **{split: arrays[split] for split in ROWS})
    table(lines, ["index", "right", "other"], folder / "attributes.csv")
    table([lines[k] for k in random.permutation(len(lines))], ["index", "right", "other"], folder / "shuffled.csv")
    table(lines[:17] + lines[18:], ["index", "right", "other"], folder / "short.csv")
    table([[*row[:1], 1, 0] for row in lines], ["index", "right", "other"], folder / "constant.csv")
    small = ["--depth", "2", "--width", "16", "--scales", "2", "--batch", "32", "--threads", "1", "--seed", "1"]
    for name, more in (("bars", ["--classes", "2", "--label-weight", "0.5"]), ("bare", [])):
        data = ["--data", str(folder / f"{name}.npz"), "--out", str(folder / name)]
        assert main(["train", "glow", "--steps", "120", *data, *small, *more]) == 0
    flags = ["--hidden", "4", "--depth", "1", "--steps", "3", "--threads", "1"]
    assert main(["train", "nice", *flags, "--out", str(folder / "digits")]) == 0
    return folder


def test_classes_are_found_drawn_and_reported(bars, capsys):
    found = answer(capsys, "evaluate", bars / "bars")
    assert found["accuracy"]["classifier"] > 0.9
    assert found["accuracy"]["bayes"] > 0.9
    light = {}
    for label in (0, 1):
        out = bars / f"label{label}.npz"
        answer(capsys, "sample", bars / "bars", "-n", 60, "--label", label, "--temperature", 0.7, "--out", out)
        light[label] = np.load(out)["x"].mean()
    assert light[1] > light[0] + 40
    page = (bars / "bars" / "report.html").read_text()
    for title in ("Classes", "Scale by scale", "Editing", "Interpolation"):
        assert f"{title}</h2>" in page


def test_resume_keeps_the_classes(bars, capsys):
    run = bars / "resumed"
    flags = ["--data", bars / "bars.npz", "--classes", "2", "--depth", "1", "--width", "4", "--threads", "1"]
    answer(capsys, "train", "glow", "--out", run, "--steps", 20, *flags)
    answer(capsys, "train", "glow", "--out", run, "--steps", 30, "--resume")
    assert main(["train", "glow", "--out", str(run), "--resume", "--label-weight", "1"]) == 2
    assert "label_weight 0.01" in capsys.readouterr().err
    assert longflow.load(run).base.classes == 2


def test_runs_from_before_classes_resume(tmp_path, capsys):
    flags = ["--hidden", "4", "--depth", "1", "--threads", "1", "--out", tmp_path / "old"]
    answer(capsys, "train", "nice", "--steps", 20, *flags)
    config = json.loads((tmp_path / "old" / "config.json").read_text())
    del config["label_weight"], config["data"]["labels_sha256"]
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    answer(capsys, "train", "nice", "--steps", 30, "--resume", "--out", tmp_path / "old")


def test_runs_with_settings_that_say_nothing_resume(tmp_path, capsys):
    """A weight of labels without classes, and a patience below 0, were once accepted, and did nothing."""
    answer(capsys, "train", "nice", "--steps", 20, "--out", tmp_path / "old")
    config = json.loads((tmp_path / "old" / "config.json").read_text())
    (tmp_path / "old" / "config.json").write_text(json.dumps({**config, "label_weight": 7.0, "patience": -1}))
    assert main(["train", "nice", "--resume", "--steps", "30", "--out", str(tmp_path / "old")]) == 0


def test_a_direction_moves_what_it_says_and_passes_through_the_event(bars, capsys):
    strips = []
    for k, more in enumerate((["right", "--table", "attributes.csv"], ["right", "--table", "shuffled.csv"], ["1"])):
        out = bars / f"edit-{k}.npz"
        flags = ["--attribute", *(bars / word if word.endswith("csv") else word for word in more)]
        found = answer(capsys, "edit", bars / "bars", *flags, "--strength", 1.2, "--points", 5, "-n", 30, "--out", out)
        assert found["auc"] > 0.9
        assert found["positives"] + found["negatives"] == ROWS["train"] - ROWS["train"] // 10
        strips.append(np.load(out)["x"].reshape(30, 5, 8, 8).astype(float))
        assert np.array_equal(strips[k][:, 2], np.load(bars / "bars.npz")["test"][:30, 0])
    assert np.array_equal(strips[0], strips[1])
    assert (np.diff((strips[0][..., 5] - strips[0][..., 1]).mean((0, 2))) > 0).all()
    assert (np.diff(strips[2].mean((0, 2, 3))) > 0).all()


def test_redrawing_shows_the_event_and_its_draws(bars, capsys):
    out = bars / "redrawn.npz"
    answer(capsys, "resample", bars / "bare", "--scales", 1, "-n", 3, "--draws", 2, "--out", out)
    x = np.load(out)["x"].reshape(3, 3, 1, 8, 8)
    assert np.array_equal(x[:, 0], np.load(bars / "bare.npz")["test"][:3])
    assert (x[:, 1] != x[:, 0]).any()
    assert (x[:, 2] != x[:, 1]).any()


def test_scale_temperatures_of_zero_are_the_centre(bars, capsys):
    out = bars / "still.npz"
    answer(capsys, "sample", bars / "bare", "-n", 3, "--scale-temperature", 0, 0, "--out", out)
    x = np.load(out)["x"]
    assert np.array_equal(x[0], x[1])
    out = bars / "fine.npz"
    answer(capsys, "sample", bars / "bare", "-n", 3, "--scale-temperature", 1, 0, "--out", out)
    x = np.load(out)["x"]
    assert not np.array_equal(x[0], x[1])


def test_the_manifold_passes_through_its_four_events(bars, capsys):
    out = bars / "manifold.npz"
    answer(capsys, "manifold", bars / "bare", "--points", 4, "--out", out)
    x = np.load(out)["x"].reshape(4, 4, 1, 8, 8)
    test = np.load(bars / "bare.npz")["test"]
    assert all((test == x[place]).all((1, 2, 3)).any() for place in ((0, 0), (0, 1), (1, 0), (1, 1)))


def test_latent_energies_of_the_models_own_draws_are_one(bars, capsys):
    out = bars / "own.npz"
    answer(capsys, "sample", bars / "bare", "-n", 400, "--temperature", 1, "--out", out)
    x = np.load(out)["x"]
    np.savez(bars / "own-splits.npz", train=x[:200], validation=x[:20], test=x)
    found = answer(capsys, "latents", bars / "bare", "--data", bars / "own-splits.npz")
    assert found["mean_z2"] == pytest.approx([1, 1], abs=0.15)


def test_check_tells_the_share_of_wrong_levels_on_other_data(bars, capsys):
    np.savez(bars / "noise.npz", x=np.random.default_rng(1).integers(0, 256, (60, 1, 8, 8)).astype(np.uint8))
    found = answer(capsys, "check", bars / "bare", "--other", bars / "noise.npz", "-n", 6)
    kinds = {"data", "samples", "uniform noise", "wide Gaussian noise", f"other data: {bars / 'noise.npz'}"}
    for measured in found["dtypes"].values():
        assert set(measured["wrong_pixels"]) == set(measured["non_finite"]) == kinds
        assert all(0 <= share <= 1 for share in measured["wrong_pixels"].values())
    assert found["dtypes"]["float64"]["wrong_pixels"]["data"] == 0


def test_check_counts_the_levels_that_an_exploding_flow_loses(bars, capsys, tmp_path):
    run = shutil.copytree(bars / "bare", tmp_path / "exploding")
    weights = load_file(run / "model.safetensors")
    for name, value in weights.items():
        if name.endswith("layers.4.bias"):
            value[: len(value) // 2] = -35.0  # scales of exp(-33), beyond the rounding of float32
    save_file(weights, run / "model.safetensors")
    assert main(["check", str(run), "--json", "-n", "4"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["dtypes"]["float32"]["wrong_pixels"]["data"] > 0.1
    assert not found["passed"]


def test_a_table_may_have_one_column(bars, capsys):
    rows = (bars / "attributes.csv").read_text().splitlines()
    (bars / "one.csv").write_text("\n".join(line.split(",")[1] for line in rows) + "\n")
    found = answer(capsys, "edit", bars / "bare", "--attribute", "right", "--table", bars / "one.csv")
    assert found["auc"] > 0.9


def test_labels_of_one_class_are_reported_without_directions(bars, capsys):
    x = np.load(bars / "bare.npz")["train"]
    np.savez(bars / "single.npz", x=x, y=np.zeros(len(x), np.int64))
    flags = ["--hidden", "4", "--depth", "1", "--steps", "3", "--threads", "1", "--out", bars / "single"]
    answer(capsys, "train", "nice", "--data", bars / "single.npz", *flags)
    assert "Editing</h2>" not in (bars / "single" / "report.html").read_text()


def test_changed_labels_are_told(bars, tmp_path, capsys):
    arrays = dict(np.load(bars / "bars.npz"))
    np.savez(tmp_path / "mine.npz", **arrays)
    flags = ["--classes", "2", "--depth", "1", "--width", "4", "--threads", "1", "--out", tmp_path / "run"]
    answer(capsys, "train", "glow", "--data", tmp_path / "mine.npz", "--steps", 3, *flags)
    np.savez(tmp_path / "mine.npz", **arrays | {"train_labels": 1 - arrays["train_labels"]})
    assert main(["evaluate", str(tmp_path / "run")]) == 2
    assert "labels of" in capsys.readouterr().err
    assert main(["train", "glow", "--out", str(tmp_path / "run"), "--resume", "--steps", "5"]) == 2
    assert "labels_sha256" in capsys.readouterr().err


def test_redrawn_scales_stay_in_the_class_of_the_event(bars):
    model = longflow.load(bars / "bars")
    with torch.no_grad():
        model.base.raw_loc.copy_(torch.tensor([-0.6, 0.6])[:, None, None].expand_as(model.base.raw_loc))
    rows = np.load(bars / "bars.npz")["test"][:6]
    z = model.density.encode(torch.as_tensor(rows).float() + 0.5)
    own = model.base.log_joint(z).argmax(1)
    fine = model.density.scale_map() == 0
    for draw in redrawn(model.density, rows, [0], 0.1, 2, 0).swapaxes(0, 1):
        again = model.density.encode(torch.as_tensor(draw))[:, fine].mean(1)
        assert torch.equal((again > 0).long(), own)


def test_report_speaks_to_people_too(bars, capsys):
    assert main(["report", str(bars / "bare")]) == 0
    assert "report in" in capsys.readouterr().out


def test_batch_statistics_are_settled_by_training_and_resumed(tmp_path, capsys):
    flags = ["--norm", "batch", "--width", "4", "--blocks", "1", "--threads", "1", "--batch", "64"]
    for name, steps in (("whole", [40]), ("cut", [20, 40])):
        for k, count in enumerate(steps):
            more = ["--resume"] if k else flags
            answer(
                capsys, "train", "realnvp", "--out", tmp_path / name, "--steps", count, "--schedule", "constant", *more
            )
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    model = longflow.load(tmp_path / "whole")
    rows = torch.as_tensor(longflow.data.load("digits").split("train")[:1000]).float()
    with torch.no_grad():
        settled = model.log_prob(rows).mean().item()
        together = model.train().log_prob(rows).mean().item()
    assert settled == pytest.approx(together, abs=0.02 * abs(together))


def test_report_shows_named_attributes(bars, capsys):
    flags = ["--attribute", "right", "--table", bars / "attributes.csv"]
    answer(capsys, "report", bars / "bare", *flags)
    assert "right; its projection" in (bars / "bare" / "report.html").read_text()
    assert (bars / "bare" / "samples" / "editing-1.png").is_file()


TRAIN = ["train", "glow", "--out"]
BAD = {
    "classes without labels": (lambda b, t: [*TRAIN, t / "x", "--data", b / "bare.npz", "--classes", 2], "has none"),
    "labels out of range": (lambda b, t: [*TRAIN, t / "x", "--classes", 4], "labels 0 to 3; digits has 0 to 9"),
    "classes that never occur": (lambda b, t: [*TRAIN, t / "x", "--data", b / "bars.npz", "--classes", 3], "none of 2"),
    "noise and classes": (lambda b, t: [*TRAIN, t / "x", "--classes", 10, "--noise", 0, 1], "not both"),
    "label weight": (lambda b, t: [*TRAIN, t / "x", "--classes", 10, "--label-weight", -1], ">= 0"),
    "label": (lambda b, t: ["sample", b / "bars", "--label", 2], "--label of 0 to 1; 2 came"),
    "no classes": (lambda b, t: ["sample", b / "bare", "--label", 0], "no classes"),
    "temperatures": (lambda b, t: ["sample", b / "bare", "--scale-temperature", 1], "each of 2 scales; 1 came"),
    "both": (lambda b, t: ["sample", b / "bare", "--scale-temperature", 1, 1, "--temperature", 1], "not both"),
    "scales": (lambda b, t: ["resample", b / "bare", "--scales", 2], "scales of 0 to 1; 2 came"),
    "no draws": (lambda b, t: ["resample", b / "bare", "--draws", 0], "--draws >= 1"),
    "no attribute": (lambda b, t: ["edit", b / "bare"], "expected --attribute"),
    "no labels": (lambda b, t: ["edit", b / "bare", "--attribute", "right"], "no labels"),
    "class": (lambda b, t: ["edit", b / "bars", "--attribute", "7"], "known: 0, 1"),
    "column": (
        lambda b, t: ["edit", b / "bare", "--attribute", "rigth", "--table", b / "attributes.csv"],
        "did you mean 'right'",
    ),
    "missing row": (
        lambda b, t: ["edit", b / "bare", "--attribute", "right", "--table", b / "short.csv"],
        "189 lines, expected one for each of 190 rows of the data; row 17 is missing",
    ),
    "constant attribute": (
        lambda b, t: ["edit", b / "bare", "--attribute", "right", "--table", b / "constant.csv"],
        "both kinds",
    ),
    "table of a named set": (
        lambda b, t: ["edit", b / "digits", "--attribute", "right", "--table", b / "attributes.csv"],
        "data are 'digits'",
    ),
    "batches of one": (
        lambda b, t: ["train", "realnvp", "--norm", "batch", "--batch", 1, "--data", "rings", "--out", t / "x"],
        "at least 2 rows",
    ),
    "no such table": (lambda b, t: ["edit", b / "bars", "--attribute", "a", "--table", b / "none.csv"], "none.csv"),
    "table without attribute": (lambda b, t: ["report", b / "bare", "--table", b / "attributes.csv"], "--attribute"),
    "attribute of a report": (lambda b, t: ["report", b / "bars", "--attribute", "7"], "known: 0, 1"),
    "huge label": (lambda b, t: ["sample", b / "bars", "--label", 10**20], "--label of 0 to 1"),
    "cold": (lambda b, t: ["resample", b / "bare", "--temperature", -1], "temperature >= 0"),
    "strength": (lambda b, t: ["edit", b / "bars", "--attribute", "1", "--strength", "inf"], "finite --strength"),
    "points": (lambda b, t: ["edit", b / "bars", "--attribute", "1", "--points", 1], "--points >= 3"),
    "even points": (lambda b, t: ["edit", b / "bars", "--attribute", "1", "--points", 4], "odd number"),
    "manifold": (lambda b, t: ["manifold", b / "bare", "--points", 1], "--points >= 2"),
    "latents as a table": (lambda b, t: ["latents", b / "bare", "--out", t / "x.npz"], ".png"),
    "odd sides": (lambda b, t: ["train", "realnvp", "--scales", 4, "--out", t / "x"], "3 times; 16x16 would do"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_status_2(case, bars, tmp_path, capsys):
    make, says = BAD[case]
    assert main([str(a) for a in make(bars, tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert says in err
    assert not (tmp_path / "x").exists()


def test_a_grey_picture_is_refused_by_a_colour_model(bars, tmp_path, capsys):
    colour = np.random.default_rng(0).integers(0, 256, (60, 3, 8, 8)).astype(np.uint8)
    np.savez(tmp_path / "colour.npz", x=colour)
    flags = ["--depth", "1", "--width", "4", "--threads", "1", "--steps", "3", "--out", tmp_path / "run"]
    answer(capsys, "train", "glow", "--data", tmp_path / "colour.npz", *flags)
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(bars / "bare.npz")]) == 2
    assert "expects data of shape (3, 8, 8)" in capsys.readouterr().err


def test_pictures_that_never_vary_are_refused(tmp_path, capsys):
    np.savez(tmp_path / "same.npz", x=np.full((60, 1, 8, 8), 7, np.uint8))
    assert main(["train", "glow", "--data", str(tmp_path / "same.npz"), "--out", str(tmp_path / "x")]) == 2
    assert "rows that differ" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()

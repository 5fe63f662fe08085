"""Measures of samples against closed forms, other implementations and faults made by hand; the command end to end."""

import json
import sys
import types

import numpy as np
import pytest
import scipy.linalg
import torch

from longflow.cli import main
from longflow.commands.datasets import dataset_of
from longflow.commands.draw import draw
from longflow.commands.quality import material, quality, rows_to_compare
from longflow.errors import UsageError
from longflow.quality import (
    Material,
    density_coverage,
    extractor_of,
    find_copies,
    frechet_distance,
    kernel_distance,
    precision_recall,
    summarise,
)
from longflow.quality.clusters import agreement
from longflow.quality.distances import nearest, neighbour_radii
from longflow.quality.extractors import STEPS, likely_kinds
from longflow.quality.features import Standardised
from longflow.quality.frechet import frechet_of_moments, moments
from longflow.quality.inception import WEIGHTS
from longflow.quality.kernel import mmd_squared
from longflow.quality.memorisation import compare_distances
from longflow.runs import Run
from longflow.words import quality_words

RANDOM = np.random.default_rng


def covariance(random, dims, rank=None):
    factor = random.normal(size=(dims, rank or dims))
    return factor @ factor.T


# Fréchet distance


def test_frechet_of_gaussians_is_the_closed_form():
    mean, scale = np.array([1.0, -2.0, 0.5]), np.array([2.0, 1.0, 0.25])
    found = frechet_of_moments(mean, np.diag(scale**2), np.zeros(3), np.eye(3))
    assert found == pytest.approx(5.25 + 1 + 0 + 0.75**2, abs=1e-12)


@pytest.mark.parametrize("rank", [6, 2])
def test_frechet_agrees_with_scipys_root_of_a_matrix(rank):
    random = RANDOM(rank)
    a, b = covariance(random, 6, rank), covariance(random, 6)
    root = scipy.linalg.sqrtm(scipy.linalg.sqrtm(b) @ a @ scipy.linalg.sqrtm(b))
    expected = 1.5 + np.trace(a) + np.trace(b) - 2 * np.trace(root).real
    mean = np.full(6, 0.5)
    # A root of zero eigenvalues keeps half of the digits, in scipy's way.
    assert frechet_of_moments(mean, a, np.zeros(6), b) == pytest.approx(expected, abs=1e-9 if rank == 6 else 1e-5)


def test_frechet_of_rank_deficient_covariances_is_that_of_their_span():
    random = RANDOM(3)
    a, b, turn = covariance(random, 2), covariance(random, 2), np.linalg.qr(random.normal(size=(5, 5)))[0][:, :2]
    inside = frechet_of_moments(np.zeros(2), a, np.zeros(2), b)
    lifted = frechet_of_moments(np.zeros(5), turn @ a @ turn.T, np.zeros(5), turn @ b @ turn.T)
    assert lifted == pytest.approx(inside, abs=1e-6)


def test_frechet_is_zero_of_equal_samples_symmetric_and_keeps_under_rotations():
    random = RANDOM(4)
    x, y = random.normal(size=(50, 80)), random.normal(size=(50, 80)) * 2 + 1
    turn = np.linalg.qr(random.normal(size=(80, 80)))[0]
    assert frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-12)
    assert frechet_distance(x @ turn + 3, y @ turn + 3) == pytest.approx(frechet_distance(x, y), rel=1e-10)
    assert frechet_distance(3 * x, 3 * y) == pytest.approx(9 * frechet_distance(x, y), rel=1e-10)


def test_frechet_of_one_distribution_falls_with_the_sample_size():
    random = RANDOM(5)
    found = {n: np.mean([frechet_distance(*random.normal(size=(2, n, 8))) for _ in range(30)]) for n in (50, 200)}
    assert 3 < found[50] / found[200] < 5.5
    with pytest.raises(UsageError, match="one shape"):
        frechet_distance(random.normal(size=(50, 8)), random.normal(size=(60, 8)))


def test_moments_are_unbiased():
    assert moments(np.array([[0.0], [2.0]]))[1] == pytest.approx(np.array([[2.0]]))


# Kernel distance


def test_kernel_distance_is_its_formula_pair_by_pair():
    random = RANDOM(6)
    x, y = random.normal(size=(7, 3)), random.normal(size=(5, 3)) + 1

    def mean(a, b, *, same):
        return np.mean(
            [(u @ v / 3 + 1) ** 3 for i, u in enumerate(a) for j, v in enumerate(b) if not (same and i == j)]
        )

    expected = mean(x, x, same=True) + mean(y, y, same=True) - 2 * mean(x, y, same=False)
    assert mmd_squared(x, y) == pytest.approx(expected, abs=1e-12)


def test_kernel_distance_is_unbiased_and_its_error_honest():
    random = RANDOM(7)
    found = [kernel_distance(*random.normal(size=(2, 60, 4)), seed=k) for k in range(300)]
    values, errors = np.array(found).T
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(300)
    assert 0.85 < errors.mean() / values.std() < 1.15
    shifted, error = kernel_distance(random.normal(size=(200, 4)) + 0.7, random.normal(size=(200, 4)))
    assert shifted > 5 * error
    with pytest.raises(UsageError, match="subsets"):
        kernel_distance(np.zeros((19, 2)), np.zeros((19, 2)))


def test_kernel_distance_of_shifted_gaussians_is_the_closed_form():
    """For x ~ N(m, 1) and y ~ N(0, 1) on the line, E k = E (uv + 1)³ by the moments of u and v."""
    m, random = 0.5, RANDOM(8)
    first, second, third = m, 1 + m**2, m**3 + 3 * m
    within = third**2 + 3 * second**2 + 3 * first**2 + 1
    expected = within + (0 + 3 + 0 + 1) - 2 * (0 + 3 * second + 0 + 1)
    found = [mmd_squared(random.normal(size=(200, 1)) + m, random.normal(size=(200, 1))) for _ in range(100)]
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / 10)


# Neighbours


def test_neighbours_are_those_of_all_pairs():
    random = RANDOM(9)
    x = random.normal(size=(40, 3))
    x[1] = x[0]
    pairs = np.sort(np.linalg.norm(x[:, None] - x, axis=2), axis=1)
    assert neighbour_radii(x, 3) == pytest.approx(pairs[:, 3], abs=1e-12)
    assert neighbour_radii(x, 1)[0] == 0
    with pytest.raises(UsageError, match="more rows"):
        neighbour_radii(x, 40)


def test_nearest_finds_the_nearest_and_copies_at_0():
    random = RANDOM(10)
    train = random.integers(0, 256, size=(5000, 2, 3)).astype(np.uint8)
    rows = random.integers(0, 256, size=(30, 2, 3)).astype(np.float32)
    rows[4] = train[4500]
    gaps = np.linalg.norm(rows.reshape(30, 1, 6).astype(float) - train.reshape(1, -1, 6), axis=2).min(1)
    assert nearest(rows, train) == pytest.approx(gaps, abs=1e-9)
    assert nearest(rows, train)[4] == 0
    with pytest.raises(UsageError, match="1 of 30 rows"):
        nearest(np.where(np.arange(30)[:, None, None] == 2, np.nan, rows), train)


def test_neighbour_measures_by_hand():
    """On the line with k = 1: balls of the data 0, 1, 10, 11 have radius 1."""
    data, samples = np.array([[0.0], [1], [10], [11]]), np.array([[0.5], [2.0], [1.5], [5]])
    # 0.5 is in the balls of 0 and 1, 2.0 and 1.5 in that of 1; the samples' own radii are 1, 0.5, 0.5 and 3.
    assert precision_recall(samples, data, k=1) == (0.75, 0.5)
    assert density_coverage(samples, data, k=1) == (1.0, 0.5)


def modes(random, n, centres):
    return np.asarray(centres)[np.arange(n) % len(centres)] + 0.3 * random.normal(size=(n, 2))


CENTRES = [(4, 4), (-4, 4), (4, -4), (-4, -4)]


def test_a_dropped_mode_lowers_recall_and_noise_lowers_precision():
    random = RANDOM(11)
    data, same = modes(random, 400, CENTRES), modes(random, 400, CENTRES)
    dropped, noisy = (
        modes(random, 400, CENTRES[:3]),
        same + random.normal(size=(400, 2)) * (np.arange(400) % 2)[:, None],
    )
    precision, recall = precision_recall(same, data)
    assert min(precision, recall) > 0.93
    assert precision_recall(dropped, data) == pytest.approx((precision, 0.75 * recall), abs=0.03)
    assert precision_recall(noisy, data)[0] < precision - 0.2
    density, coverage = density_coverage(same, data)
    assert density == pytest.approx(1, abs=0.1)
    assert coverage == pytest.approx(1 - 1 / 2**5, abs=0.03)
    assert density_coverage(dropped, data)[1] == pytest.approx(0.75 * coverage, abs=0.03)
    assert density_coverage(noisy, data)[0] < density - 0.2


def test_copies_of_training_rows_are_found():
    random = RANDOM(12)
    train, held_out, fresh = (random.normal(size=(n, 2, 3)) for n in (800, 200, 200))
    honest = find_copies(fresh, held_out, train)
    assert honest.ratio == pytest.approx(1, abs=0.12)
    assert honest.near_share == pytest.approx(0.01, abs=4 * honest.near_share_stderr)
    assert honest.copies == 0
    half = np.where((np.arange(200) % 2 == 0)[:, None, None], train[:200], fresh)
    assert find_copies(half, held_out, train).copies == 0.5
    near = find_copies(train[:200] + 1e-3 * random.normal(size=(200, 2, 3)), held_out, train)
    assert near.copies == 0
    assert near.near_share > 0.95
    assert near.ratio < 0.01


def test_distances_are_compared_by_hand():
    found = compare_distances(np.array([0.0, 1.9, 2.0, 3.0]), np.arange(1.0, 102.0))
    assert (found.median, found.held_out_median, found.near_share, found.copies) == (1.95, 51, 0.5, 0.25)


# Extractors


def pictures(seed=0, n=300, side=8, channels=1):
    """Pictures of three classes: bright above, below, or nowhere."""
    random = RANDOM(seed)
    labels = random.integers(3, size=n)
    x = random.integers(0, 60, size=(n, channels, side, side))
    x[labels == 0, :, : side // 2] += 120
    x[labels == 1, :, side // 2 :] += 120
    return x.astype(np.uint8), labels


def source(seed=0, *, labelled=True, **shape):
    (train, labels), (test, test_labels) = pictures(seed, **shape), pictures(seed + 1, **shape)
    if not labelled:
        return Material(train, test, f"data{seed}", levels=256)
    return Material(train, test, f"data{seed}", labels, test_labels, f"labels{seed}", 256)


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr("longflow.quality.extractors.STEPS", 30)


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize(("side", "channels"), [(8, 1), (11, 3), (32, 2)])
def test_a_classifier_learns_and_knows_classes(tmp_path, side, channels):
    data = source(side=side, channels=channels)
    made, facts = extractor_of(data, "classifier", tmp_path)
    assert (facts["kind"], facts["name"]) == ("classifier", made.name)
    assert facts["test_accuracy"] > 0.95
    found = made.features(data.train)
    assert found.shape == (300, 64)
    assert found.dtype == np.float64
    assert np.allclose(found.mean(0), 0, atol=1e-3)
    assert found.std(0).max() == pytest.approx(1, abs=1e-3)
    assert np.isclose(found.std(0), 1, atol=1e-3).mean() > 0.5
    assert agreement(made.classes(data.test), data.test_labels).accuracy == facts["test_accuracy"]


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("kind", ["classifier", "random", "pca"])
def test_an_extractor_is_made_again_and_read_again_the_same(tmp_path, kind):
    data = source()
    made, facts = extractor_of(data, kind, tmp_path / "a")
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again, same = extractor_of(data, kind, tmp_path / "b")
    assert torch.equal(torch.get_rng_state(), before)
    assert facts == same
    assert made.sha256 == again.sha256
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()}
    assert len(written) == 2
    loaded, told = extractor_of(data, kind, tmp_path / "a")
    assert told == facts
    assert np.array_equal(loaded.features(data.test), made.features(data.test))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()} == written
    other, _ = extractor_of(data, kind, tmp_path / "a", seed=1)
    assert (other.sha256 == made.sha256) is (kind == "pca")


@pytest.mark.usefixtures("few_steps")
def test_an_extractor_of_other_data_or_a_damaged_one_is_refused(tmp_path):
    made, facts = extractor_of(source(), "random", tmp_path)
    other, others = extractor_of(source(7), "random", tmp_path)
    assert other.sha256 != made.sha256
    assert len(list(tmp_path.iterdir())) == 4
    own, foreign = (
        next(p for p in tmp_path.glob("*.json") if json.loads(p.read_text())["data_sha256"] == f["data_sha256"])
        for f in (facts, others)
    )
    own.write_bytes(foreign.read_bytes())
    with pytest.raises(UsageError, match="data_sha256 data7; data0 is asked for"):
        extractor_of(source(), "random", tmp_path)
    own.write_text(json.dumps(facts))
    weights = own.with_suffix(".safetensors")
    weights.write_bytes(foreign.with_suffix(".safetensors").read_bytes())
    with pytest.raises(UsageError, match="not those it was stored with"):
        extractor_of(source(), "random", tmp_path)
    weights.write_bytes(b"no")
    with pytest.raises(UsageError, match="is damaged"):
        extractor_of(source(), "random", tmp_path)
    with pytest.raises(UsageError, match=r"shape \(1, 8, 8\)"):
        made.features(np.zeros((4, 3, 8, 8)))
    with pytest.raises(UsageError, match="1 of 4 rows"):
        made.features(np.where(np.arange(4)[:, None, None, None] == 1, np.inf, np.zeros((4, 1, 8, 8))))


def test_kinds_suit_the_data(tmp_path):
    assert likely_kinds(source()) == ("classifier", "random")
    assert likely_kinds(source(labelled=False)) == ("random",)
    assert likely_kinds(source(side=6)) == ("pca",)
    table = Material(RANDOM(0).normal(size=(40, 3)), RANDOM(1).normal(size=(9, 3)), "table")
    assert likely_kinds(table) == ("pca",)
    for kind, data, match in (
        ("classifier", source(labelled=False), "labels of at least two"),
        ("classifier", source(side=6), "sides >= 8"),
        ("random", table, "pictures"),
        ("inception", table, "pictures of 1 or 3"),
        ("vgg", table, "unknown extractor"),
    ):
        with pytest.raises(UsageError, match=match):
            extractor_of(data, kind, tmp_path)


def test_whitening_has_unit_covariance_and_leaves_constants_out(tmp_path):
    random = RANDOM(2)
    x = random.normal(size=(500, 5)) @ random.normal(size=(5, 5)) * 100
    x[:, 3] = 7
    made, facts = extractor_of(Material(x, x[:10], "x"), "pca", tmp_path)
    found = made.features(x)
    assert facts["kind"] == "pca"
    assert found.shape == (500, 4)
    assert np.cov(found, rowvar=False) == pytest.approx(np.eye(4), abs=1e-9)
    assert made.classes(x) is None


def test_whitening_of_pictures_leaves_out_pixels_that_are_hardly_ever_set(tmp_path):
    x = RANDOM(3).normal(size=(400, 1, 8, 8))
    x[:, :, :, 4:] = 0
    x[7, 0, 0, 7] = 1
    made, _ = extractor_of(Material(x, x[:10], "x"), "pca", tmp_path)
    moved = x[:20].copy()
    moved[:, 0, 0, 7] += 1
    assert made.features(x).shape == (400, 32)
    assert made.features(moved) == pytest.approx(made.features(x[:20]), abs=0.2)


def test_a_unit_that_is_all_but_dead_does_not_decide():
    units = Standardised((4,))
    units.fit(np.zeros(4), np.array([1.0, 1, 1, 1e-4]))
    assert units(torch.ones(1, 4))[0].tolist() == pytest.approx([1, 1, 1, 10 / np.sqrt(0.75)], rel=1e-5)


def test_inception_is_used_where_it_is_and_never_downloaded(tmp_path, monkeypatch):
    if "torch_fidelity" not in sys.modules:
        with pytest.raises(UsageError, match="torch-fidelity, which is not installed"):
            extractor_of(source(), "inception", tmp_path)

    class Network(torch.nn.Module):
        def __init__(self, name, features, feature_extractor_weights_path):
            super().__init__()
            self.path = feature_extractor_weights_path
            self.register_buffer("unit", torch.ones(()))

        def forward(self, x):
            assert x.dtype == torch.uint8
            assert x.shape[1] == 3
            return (x.float().mean((2, 3)),)

    package = types.ModuleType("torch_fidelity")
    package.__spec__ = types.SimpleNamespace()
    package.feature_extractor_inceptionv3 = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    package.feature_extractor_inceptionv3.FeatureExtractorInceptionV3 = Network
    monkeypatch.setitem(sys.modules, "torch_fidelity", package)
    monkeypatch.setitem(
        sys.modules, "torch_fidelity.feature_extractor_inceptionv3", package.feature_extractor_inceptionv3
    )
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UsageError, match="does not download"):
        extractor_of(source(), "inception", tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / WEIGHTS).write_bytes(b"")
    data = source()
    made, facts = extractor_of(data, "inception", tmp_path)
    assert facts["kind"] == "inception"
    assert made.features(np.full((2, 1, 8, 8), 255)) == pytest.approx(np.full((2, 3), 255.0))
    assert made.network.path.endswith(WEIGHTS)


# All together


@pytest.mark.usefixtures("few_steps")
def test_the_summary_sees_each_fault(tmp_path):
    (train, _), (held_out, _) = pictures(0, n=600), pictures(1, n=120)
    fresh, classes = pictures(2, n=240)
    made, _ = extractor_of(source(), "classifier", tmp_path)

    def told(samples):
        found = summarise(samples, held_out, made, fresh=train)
        return {name: value["samples"] for name, value in found["measures"].items()}, found

    good, whole = told(fresh[:120])
    assert set(whole["measures"]["recall"]) == {"samples", "floor", "floor_sd"}
    floor = whole["measures"]["frechet_distance"]
    assert abs(good["frechet_distance"] - floor["floor"]) < max(5 * floor["floor_sd"], 0.5 * floor["floor"])
    assert sum(whole["class_shares"]["samples"]) == pytest.approx(1)
    missing, _ = told(np.concatenate([fresh[classes > 0]])[:120])
    assert missing["recall"] < good["recall"] - 0.2
    assert missing["class_entropy"] == pytest.approx(np.log(2), abs=0.02)
    assert missing["frechet_distance"] > 3 * good["frechet_distance"]
    noise, _ = told(RANDOM(5).integers(0, 256, size=(120, 1, 8, 8)))
    assert noise["precision"] < 0.1
    assert noise["kernel_distance"] > good["kernel_distance"] + 5 * good["kernel_distance_stderr"]
    copied, _ = told(train[:120])
    assert copied["precision"] > 0.8
    assert find_copies(train[:120], held_out, train).copies == 1
    with pytest.raises(UsageError, match="no fewer fresh rows"):
        summarise(train, train, made, fresh=train[:500])


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("quality") / "digits", "--data", "digits")


def trained(out, *flags):
    small = ["--hidden", "16", "--depth", "1", "--steps", "60", "--threads", "1"]
    assert main(["train", "nice", "--out", str(out), *small, *flags]) == 0
    return Run.open(out)


@pytest.mark.usefixtures("few_steps")
def test_the_command_end_to_end(digits, tmp_path):
    found = quality(str(digits.path), n=100, cache=str(tmp_path), device="cpu")
    json.dumps(found, allow_nan=False)
    assert found["n"] + found["not_finite"] == 100
    classifier, random = found["features"]
    assert [space["extractor"]["kind"] for space in found["features"]] == ["classifier", "random"]
    assert classifier["extractor"]["data_sha256"] == found["data_sha256"]
    measures = classifier["measures"]
    assert measures["frechet_distance"]["samples"] > 2 * measures["frechet_distance"]["floor"]
    assert found["nearest_training_row"]["copies"] == 0
    assert len(classifier["class_shares"]["held_out"]) == 10
    assert random["class_shares"] is None
    again = quality(str(digits.path), n=100, cache=str(tmp_path), device="cpu")
    assert again == found
    words = quality_words(found)
    assert f"classifier of the labels {classifier['extractor']['sha256'][:12]}" in words
    assert "none of this is an FID" in words
    assert f"{measures['frechet_distance']['samples']:.3f}" in words
    (alone,) = quality(str(digits.path), n=100, extractor="random", cache=str(tmp_path), device="cpu")["features"]
    assert alone == random


def test_the_command_says_how_many_rows_there_are(digits, tmp_path):
    dataset = dataset_of(Run.open(digits.path))
    assert rows_to_compare(dataset, None) == 360
    for n in (19, 361):
        with pytest.raises(
            UsageError, match=r"expected -n of 20 to 360 \(digits has 1,257 training and 360 test rows, half"
        ):
            quality(str(digits.path), n=n, cache=str(tmp_path))
    assert material(dataset).labels_sha256 == dataset.labels_sha256
    assert STEPS >= 600


def test_samples_that_are_not_finite_are_counted(digits, tmp_path, monkeypatch):
    def broken(*arguments, **options):
        drawn = draw(*arguments, **options)
        drawn[:7] = np.nan
        return drawn

    monkeypatch.setattr("longflow.commands.quality.draw", broken)
    found = quality(str(digits.path), n=60, extractor="pca", cache=str(tmp_path), device="cpu")
    assert (found["n"], found["not_finite"]) == (53, 7)
    assert "left out as not finite: 7 more samples" in quality_words(found)
    with pytest.raises(UsageError, match="7 of 26 samples are not finite"):
        quality(str(digits.path), n=26, extractor="pca", cache=str(tmp_path), device="cpu")


def test_a_table_has_its_columns_in_their_units(tmp_path):
    table = tmp_path / "table.csv"
    rows = RANDOM(0).normal(size=(400, 3)) * [1, 500, 0.1] + [100, 0, 2]
    table.write_text("a,b,c\n" + "\n".join(",".join(f"{v:.6f}" for v in row) for row in rows) + "\n")
    run = trained(tmp_path / "run", "--data", str(table))
    found = quality(str(run.path), cache=str(tmp_path / "cache"), device="cpu")
    assert found["n"] == 40
    (space,) = found["features"]
    assert space["extractor"]["kind"] == "pca"
    assert space["measures"]["recall"]["floor"] > 0.8
    assert found["nearest_training_row"]["held_out_median"] < 2

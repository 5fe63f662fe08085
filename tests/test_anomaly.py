"""Scores of anomalies, against closed forms, scipy and what they promise of typical rows."""

import math
import zlib

import numpy as np
import pytest
import torch
from doors import answer, refused
from scipy import stats
from tolerances import SIGMAS, close

import longflow
from longflow import anomaly
from longflow.bijections import Affine, Chain, Learned, Standardise
from longflow.cli import main
from longflow.distributions import Dequantised, DiagonalNormal, Flow, StandardLogistic, StandardNormal, Uniform
from longflow.errors import UsageError


def test_surprise_and_ratio_are_differences_of_nats():
    own, background = torch.tensor([-3.0, 2.0]), torch.tensor([-1.0, -1.0])
    assert anomaly.surprise(own).tolist() == [3.0, -2.0]
    assert anomaly.likelihood_ratio(own, background).tolist() == [2.0, -3.0]


def test_typical_rows_are_where_the_entropy_is_not_where_the_density_is_highest():
    """Of a standard normal in 100 dimensions H = 50 log 2πe, and the mode is strange by 50 nats."""
    model = StandardNormal((100,)).double()
    nats = model.log_prob(model.sample(20000))
    typical = anomaly.entropy(nats)
    assert typical == pytest.approx(50 * math.log(2 * math.pi * math.e), abs=SIGMAS * math.sqrt(50 / 20000))
    mode = anomaly.atypicality(model.log_prob(torch.zeros(1, 100, dtype=torch.float64)), typical)
    assert mode.item() == pytest.approx(50, abs=0.5)
    assert anomaly.p_values(mode, anomaly.atypicality(nats, typical)).item() == pytest.approx(1 / 20001)
    assert anomaly.p_values(anomaly.surprise(model.log_prob(torch.zeros(1, 100).double())), -nats).item() == 1.0


def test_batches_of_typical_rows_exceed_their_threshold_as_often_as_said():
    model = StandardNormal((10,)).double()
    held = model.log_prob(model.sample(20000))
    typical = anomaly.entropy(held)
    above = anomaly.atypical_above(held, typical, size=25, level=0.1)
    fresh = model.log_prob(model.sample(2000 * 25)).reshape(2000, 25)
    rate = np.mean([anomaly.batch_atypicality(batch, typical) > above for batch in fresh])
    assert abs(rate - 0.1) < SIGMAS * math.sqrt(0.09 / 2000)
    with pytest.raises(UsageError, match="size"):
        anomaly.atypical_above(held, typical, size=0)


def test_perturbed_rows_keep_columns_and_lose_what_ties_them():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(20000, 1))
    rows = np.hstack((x, x))
    found = anomaly.perturbed(rows, 0.2, generator)
    changed = (found != rows).mean()
    assert abs(changed - 0.2) < SIGMAS * math.sqrt(0.16 / 40000)
    assert np.isin(found, rows).all()
    assert np.corrcoef(found.T)[0, 1] == pytest.approx(0.64, abs=0.03)
    drawn = anomaly.perturbed(rows[:5], 1.0, generator, np.array([0, 1, 1, 0, 0]))
    assert np.isin(drawn, rows[1:3]).all()
    only = anomaly.perturbed(rows[:5], 1.0, generator, np.array([0, 0, 1, 0, 0]))
    assert (only == rows[:5]).all()  # else its columns would be constant
    with pytest.raises(UsageError, match="rate"):
        anomaly.perturbed(rows, 0.0, generator)


def test_excess_bits_are_those_of_the_likelihood_less_the_files():
    flat, noise = (
        np.full((1, 12, 12), 7, np.uint8),
        np.random.default_rng(0).integers(256, size=(3, 12, 12), dtype=np.uint8),
    )
    assert anomaly.compressed_bits(flat) <= 8 * len(zlib.compress(flat.tobytes(), 9)) < 8 * 144
    assert anomaly.compressed_bits(noise) >= 8 * noise.size
    found = anomaly.excess_bits(torch.tensor([-100.0]), flat[None])
    assert found.item() == pytest.approx(100 / math.log(2) - anomaly.compressed_bits(flat))
    with pytest.raises(UsageError, match="picture of levels"):
        anomaly.compressed_bits(flat.astype(np.float32))


BASES = {
    "normal": lambda: StandardNormal((8,)),
    "logistic": lambda: StandardLogistic((8,)),
    "uniform": lambda: Uniform((8,), -1.0, 3.0),
}


@pytest.mark.parametrize("base", BASES)
def test_normal_scores_of_noise_are_standard_normal(base):
    noise = BASES[base]().double()
    w = noise.normal_scores(noise.sample(5000)).flatten().numpy()
    assert stats.kstest(w, "norm").pvalue > 1e-4
    far = noise.normal_scores(torch.full((1, 8), 1e3, dtype=torch.float64))
    assert far.isfinite().all()
    assert (far > 5).all()
    close(noise.normal_scores(torch.full((1, 8), -1e3, dtype=torch.float64)) < -5, torch.ones(1, 8).bool())


def test_statistics_of_latents_are_scipys():
    w = torch.randn(6, 9, dtype=torch.float64)
    model = Flow(Chain(), StandardNormal((9,))).double()
    found = {test: anomaly.latent_misfit(model, w, test=test) for test in anomaly.STATISTICS}
    for i, row in enumerate(w.numpy()):
        assert found["kolmogorov-smirnov"][i].item() == pytest.approx(3 * stats.kstest(row, "norm").statistic)
        u = np.sort(stats.norm.cdf(row))
        k = np.arange(1, 10)
        a2 = -9 - np.sum((2 * k - 1) * (np.log(u) + np.log(1 - u[::-1]))) / 9
        assert found["anderson-darling"][i].item() == pytest.approx(a2)
        tail = stats.chi2.cdf(np.square(row).sum(), 9)
        assert found["chi-square"][i].item() == pytest.approx(abs(stats.norm.ppf(tail)), abs=0.02)
    with pytest.raises(UsageError, match="did you mean 'chi-square'"):
        anomaly.latent_misfit(model, w, test="chi-squared")


def test_latents_far_out_are_told_apart():
    model = Flow(Learned(Affine(), (4,)), StandardNormal((4,))).double()
    for test in ("anderson-darling", "chi-square"):
        found = anomaly.latent_misfit(
            model, torch.tensor([[20.0], [50.0], [500.0]], dtype=torch.float64).expand(3, 4), test=test
        )
        assert found.isfinite().all()
        assert found[0] < found[1] < found[2]


def test_latents_of_levels_are_taken_at_the_middle_of_their_bins():
    model = Dequantised(Flow(Chain(Standardise(2.0, 1.0)), StandardNormal((1, 2, 2))), 4)
    x = torch.randint(4, (3, 1, 2, 2))
    close(anomaly.latent_misfit(model, x), anomaly.latent_misfit(model.density, x + 0.5), 1e-6)


def test_p_values_are_uniform_for_rows_like_those_held_out():
    draws = torch.randn(4000)
    found = anomaly.p_values(draws[:2000], draws[2000:])
    assert stats.kstest(found.numpy(), "uniform").pvalue > 1e-4
    assert anomaly.p_values(torch.tensor([9e9, -9e9]), draws).tolist() == [pytest.approx(1 / 4001), 1.0]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strange")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 1))
    rows = np.hstack((x, x + 0.1 * rng.normal(size=(400, 1))))
    np.savetxt(folder / "table.csv", rows, delimiter=",", header="a,b", comments="")
    np.savetxt(folder / "new.csv", [[0.0, 0.0], [1.5, -1.5]], delimiter=",", header="a,b", comments="")
    small = ["--steps", "150", "--threads", "1", "--hidden", "16", "--depth", "1"]
    assert main(["train", "nice", "--data", str(folder / "table.csv"), "--out", str(folder / "run"), *small]) == 0
    small = ["--steps", "5", "--threads", "1", "--hidden", "8", "--depth", "1"]
    assert main(["train", "nice", "--data", "digits", "--out", str(folder / "digits"), *small]) == 0
    np.savez(folder / "pictures.npz", x=rng.integers(17, size=(4, 1, 8, 8), dtype=np.uint8))
    return folder


def table(found):
    with open(found["out"]) as lines:
        return np.genfromtxt(lines, delimiter=",", names=True)


def test_the_command_line_writes_a_column_for_each_method(runs, capsys, tmp_path):
    methods = ["log-likelihood", "typicality", "ratio", "latent"]
    found = table(
        answer(capsys, "score", runs / "run", runs / "new.csv", "--method", *methods, "--out", tmp_path / "s.csv")
    )
    names = ["log_prob", "bits_per_dim"]
    names += [name for m in methods for name in (m.replace("-", "_"), "p_" + m.replace("-", "_"))]
    assert list(found.dtype.names) == names
    np.testing.assert_allclose(found["log_likelihood"], -found["log_prob"], rtol=1e-6)
    assert found["log_likelihood"][1] > found["log_likelihood"][0]
    assert found["p_log_likelihood"][1] == pytest.approx(1 / 41)
    assert found["p_log_likelihood"][0] > 0.2


def test_another_run_can_be_the_background(runs, capsys, tmp_path):
    same = ["score", runs / "run", runs / "new.csv", "--method", "ratio", "--background", runs / "run"]
    found = table(answer(capsys, *same, "--out", tmp_path / "r.csv"))
    assert found["ratio"].tolist() == [0.0, 0.0]


def test_a_background_finds_columns_by_their_names(runs, capsys, tmp_path):
    rows = np.loadtxt(runs / "table.csv", delimiter=",", skiprows=1)
    np.savetxt(tmp_path / "ba.csv", rows[:, ::-1] * [1, 3], delimiter=",", header="b,a", comments="")
    behind = ["train", "nice", "--data", tmp_path / "ba.csv", "--out", tmp_path / "ba", "--steps", 5, "--threads", 1]
    assert main([*map(str, behind)]) == 0
    ask = ["score", runs / "run", runs / "new.csv", "--method", "ratio", "--background", tmp_path / "ba"]
    found = table(answer(capsys, *ask, "--out", tmp_path / "r.csv"))
    with torch.no_grad():
        background = longflow.load(tmp_path / "ba").log_prob(torch.tensor([[0.0, 0.0], [-1.5, 1.5]]))
    np.testing.assert_allclose(found["ratio"], background.numpy() - found["log_prob"], atol=1e-4)


def test_pictures_have_complexities(runs, capsys, tmp_path):
    ask = ["score", runs / "digits", runs / "pictures.npz", "--method", "complexity", "ratio"]
    found = table(answer(capsys, *ask, "--out", tmp_path / "c.csv"))
    bits = found["bits_per_dim"] * 64 - found["complexity"]
    with np.load(runs / "pictures.npz") as stored:
        np.testing.assert_allclose(bits, [anomaly.compressed_bits(x) for x in stored["x"]], rtol=1e-4)


def test_bad_methods_are_told(runs, capsys):
    ask = ("score", runs / "run", runs / "new.csv", "--method")
    assert "complexity" in refused(capsys, *ask, "complexty")
    assert "is for pictures" in refused(capsys, *ask, "complexity")
    assert "is for --method ratio" in refused(capsys, *ask, "latent", "--background", runs / "run")
    assert "shape" in refused(capsys, *ask, "ratio", "--background", runs / "digits")


def test_densities_of_diagonal_noise_have_scores():
    noise = DiagonalNormal((3,))
    torch.nn.init.constant_(noise.loc, 2.0)
    close(noise.normal_scores(torch.full((1, 3), 2.0)), torch.zeros(1, 3))

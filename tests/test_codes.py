"""Codes against quadrature and closed forms; clusters and probes against scikit-learn, scipy and cases by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.datasets import load_digits
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from tolerances import SIGMAS

from longflow.errors import UsageError
from longflow.quality import Labelled, agreement, compare_probes, diagnose_codes, occupancy
from longflow.quality.clusters import Agreement
from longflow.quality.codes import information_of_draws
from longflow.quality.probes import linear_accuracy, neighbour_accuracy, probe

RANDOM = np.random.default_rng


# Codes


def quadrature(mu, scale):
    """Return I(X; Z) and KL(q(z) ‖ N(0, 1)) of Gaussian posteriors on the line, by adaptive quadrature."""

    def mixture(z):
        return np.mean(norm.pdf(z, mu, scale))

    grid = sorted({*(mu - 9 * scale), *mu, *(mu + 9 * scale)})

    def integral(f):
        return sum(quad(f, a, b, epsabs=1e-11)[0] for a, b in itertools.pairwise(grid))

    def information(z):
        p = norm.pdf(z, mu, scale)
        return float(np.mean(p * np.where(p > 0, np.log(np.maximum(p, 1e-300) / mixture(z)), 0))) if mixture(z) else 0.0

    def gap(z):
        q = mixture(z)
        return q * (math.log(q) - norm.logpdf(z)) if q > 0 else 0.0

    return integral(information), integral(gap)


@pytest.mark.parametrize(
    ("mu", "scale"),
    [([-1.0, 0.5, 2.0], [0.7, 1.2, 0.4]), ([0.0, 0.1, 0.2, 5.0], [1.0, 0.9, 1.1, 0.3]), ([1.5, -1.5], [0.5, 0.5])],
)
def test_information_and_gap_are_those_of_quadrature(mu, scale):
    mu, scale = np.array(mu), np.array(scale)
    information, gap = quadrature(mu, scale)
    found = diagnose_codes(mu[:, None], np.log(scale)[:, None], draws=40_000)
    assert 0 < found.stderr < 0.01
    assert found.mutual_information == pytest.approx(information, abs=4 * found.stderr)
    assert found.gap == pytest.approx(gap, abs=4 * found.stderr)
    assert found.kl == pytest.approx(np.mean(0.5 * (mu**2 + scale**2 - 1) - np.log(scale)), abs=1e-12)
    # By quadrature alone, too: the surgery is an identity.
    assert information + gap == pytest.approx(found.kl, abs=1e-7)


def log_normal(z):
    """Return log N(z; 0, I) of codes (M, d)."""
    return norm.logpdf(z).sum(1)


def log_mixture(z):
    """Return the logarithm of 0.3 N(-1, 0.5²) + 0.7 N(1.5, 1.2²), of the shape of z."""
    parts = (math.log(w / s) - 0.5 * ((z - m) / s) ** 2 for w, m, s in ((0.3, -1.0, 0.5), (0.7, 1.5, 1.2)))
    return np.logaddexp(*parts) - 0.5 * math.log(2 * math.pi)


def test_under_a_mixture_all_three_are_those_of_quadrature():
    mu, scale = np.array([-1.0, 0.5, 2.0]), np.array([0.7, 1.2, 0.4])
    z = np.linspace(-12, 16, 20_001)[:, None]
    log_q, log_p = norm.logpdf(z, mu, scale), log_mixture(z)
    log_mean = np.logaddexp.reduce(log_q, axis=1, keepdims=True) - math.log(3)
    # On a grid, sums of functions as smooth as these and nought at the ends are their integrals to the last digits.
    kl, information, gap = (
        (np.exp(log_q) * ratio).mean(1).sum() * (z[1, 0] - z[0, 0])
        for ratio in (log_q - log_p, log_q - log_mean, log_mean - log_p)
    )
    found = diagnose_codes(
        mu[:, None], np.log(scale)[:, None], log_prior=lambda z: log_mixture(z[:, 0]), draws=10_000, seed=1
    )
    assert 0 < found.stderr_gap < found.stderr_kl < 0.02
    assert found.kl == pytest.approx(kl, abs=SIGMAS * found.stderr_kl)
    assert found.mutual_information == pytest.approx(information, abs=SIGMAS * found.stderr)
    assert found.gap == pytest.approx(gap, abs=SIGMAS * found.stderr_gap)
    assert found.kl_of_dims is None


def test_codes_of_linear_regression_are_those_of_the_closed_form():
    """Of the code of z ~ N(Ax, s²) there is KL to any normal prior; drawn, it is that of the normals."""
    random = RANDOM(5)
    mu, log_scale = random.normal(size=(400, 3)) @ random.normal(size=(3, 3)), np.full((400, 3), math.log(0.4))
    loc, scale = np.array([0.5, -1.0, 0.0]), np.array([2.0, 0.7, 1.3])
    exact = (np.log(scale / 0.4) + (0.4**2 + (mu - loc) ** 2) / (2 * scale**2) - 0.5).sum(1).mean()
    found = diagnose_codes(mu, log_scale, log_prior=lambda z: norm.logpdf(z, loc, scale).sum(1), draws=50)
    assert found.stderr_kl < 0.02
    assert found.kl == pytest.approx(exact, abs=SIGMAS * found.stderr_kl)


def test_the_standard_normal_drawn_is_the_one_in_closed_form():
    random = RANDOM(6)
    mu, log_scale = random.normal(size=(200, 4)), random.normal(size=(200, 4)) * 0.5 - 1
    exact, drawn = (diagnose_codes(mu, log_scale, log_prior=p, draws=50) for p in (None, log_normal))
    assert (drawn.mutual_information, drawn.stderr, drawn.active) == (
        exact.mutual_information,
        exact.stderr,
        exact.active,
    )
    assert exact.stderr_kl is None
    assert exact.stderr_gap == exact.stderr
    assert drawn.kl == pytest.approx(exact.kl, abs=SIGMAS * drawn.stderr_kl)
    assert 0 < drawn.stderr_kl < 0.05
    assert drawn.gap == pytest.approx(drawn.kl - drawn.mutual_information, abs=1e-12)


def test_the_gap_has_no_noise_where_the_prior_is_where_codes_are():
    """Posteriors far apart under the prior that is their mean: KL and I(X; Z) are log N, the gap is nought."""
    mu, log_scale = 100.0 * np.arange(8)[:, None], np.zeros((8, 1))

    def aggregate(z):
        return np.logaddexp.reduce(norm.logpdf(z, mu[:, 0]), axis=1) - math.log(8)

    found = diagnose_codes(mu, log_scale, log_prior=aggregate)
    assert found.gap == pytest.approx(0, abs=1e-12)
    assert found.stderr_gap == pytest.approx(0, abs=1e-12)
    assert diagnose_codes(mu, log_scale, log_prior=log_normal).stderr_gap > 1


def test_the_errors_are_the_deviations_of_the_estimates():
    random = RANDOM(0)
    mu, log_scale = random.normal(size=(30, 2)), random.normal(size=(30, 2)) * 0.3 - 0.5
    found = [diagnose_codes(mu, log_scale, log_prior=lambda z: log_mixture(z).sum(1), seed=k) for k in range(300)]
    for value, error in (("mutual_information", "stderr"), ("kl", "stderr_kl"), ("gap", "stderr_gap")):
        deviation = np.std([getattr(f, value) for f in found])
        assert np.mean([getattr(f, error) for f in found]) == pytest.approx(deviation, rel=0.15)


def test_three_numbers_add_up_and_dimensions_to_their_sum():
    random = RANDOM(1)
    found = diagnose_codes(random.normal(size=(200, 5)), random.normal(size=(200, 5)) * 0.5 - 1)
    assert found.mutual_information + found.gap == pytest.approx(found.kl, abs=1e-12)
    assert found.kl_of_dims.sum() == pytest.approx(found.kl, abs=1e-12)
    assert found.gap > -3 * found.stderr


def test_equal_posteriors_say_nothing_and_distant_ones_everything():
    random = RANDOM(2)
    same = diagnose_codes(np.full((50, 3), 0.4), np.full((50, 3), -0.2))
    assert same.mutual_information == pytest.approx(0, abs=1e-12)
    assert same.stderr == pytest.approx(0, abs=1e-12)
    assert same.gap == pytest.approx(same.kl, abs=1e-12)
    assert same.active == 0
    apart = diagnose_codes(1e3 * random.normal(size=(50, 3)), np.full((50, 3), -3.0))
    assert apart.mutual_information == pytest.approx(math.log(50), abs=1e-12)
    assert apart.ceiling == math.log(50)
    assert apart.active == 3


def test_narrow_posteriors_keep_their_digits():
    """Scaling all codes changes nothing, even at deviations of 1e-9 about means of 1."""
    mu = 1 + 1e-9 * RANDOM(3).normal(size=(40, 2))
    narrow = information_of_draws(mu, np.full((40, 2), math.log(1e-9)), 4)
    wide = information_of_draws((mu - 1) * 1e9, np.zeros((40, 2)), 4)
    assert narrow == pytest.approx(wide, abs=1e-5)


def test_no_draw_exceeds_the_ceiling_and_blocks_do_not_matter(monkeypatch):
    random = RANDOM(4)
    mu, log_scale = random.normal(size=(70, 3)) * 2, random.normal(size=(70, 3)) - 1
    whole = information_of_draws(mu, log_scale, 3)
    assert whole.max() <= math.log(70) + 1e-12
    monkeypatch.setattr("longflow.quality.codes.AT_ONCE", 70 * 9)
    assert information_of_draws(mu, log_scale, 3) == pytest.approx(whole, abs=1e-12)


def test_active_units_are_those_whose_mean_varies():
    mu = np.zeros((1000, 3))
    mu[:, 0] = 0.09 * np.tile([-1, 1], 500)
    mu[:, 1] = 0.11 * np.tile([-1, 1], 500)
    found = diagnose_codes(mu + 5, np.zeros((1000, 3)))
    assert found.active == 1
    assert found.variances == pytest.approx([0.0081, 0.0121, 0], abs=1e-12)


def test_codes_of_wrong_shapes_are_refused():
    for mu, log_scale, draws, match in (
        (np.zeros((5, 2)), np.zeros((5, 3)), 4, "one shape"),
        (np.zeros((1, 2)), np.zeros((1, 2)), 4, "N >= 2"),
        (np.zeros((5, 2)), np.zeros((5, 2)), 1, "2 draws"),
        (np.full((5, 2), np.nan), np.zeros((5, 2)), 4, "finite"),
    ):
        with pytest.raises(UsageError, match=match):
            diagnose_codes(mu, log_scale, draws=draws)


# Clusters


def brute_accuracy(clusters, classes, count):
    """Return the best share over all one-to-one maps of `count` clusters to `count` classes."""
    maps = itertools.permutations(range(count))
    return max(np.mean([to[c] == y for c, y in zip(clusters, classes, strict=True)]) for to in maps)


@pytest.mark.parametrize(("clusters", "classes"), [(4, 4), (6, 3), (2, 5), (1, 3)])
def test_accuracy_is_the_best_over_all_matchings(clusters, classes):
    random = RANDOM(10 * clusters + classes)
    found, true = random.integers(clusters, size=80), random.integers(classes, size=80)
    ours = agreement(found, true)
    assert ours.accuracy == pytest.approx(brute_accuracy(found, true, max(clusters, classes)), abs=1e-12)
    assert ours.accuracy <= ours.purity
    assert len(ours.matching) == min(clusters, classes)
    assert np.mean([ours.matching.get(c, -1) == y for c, y in zip(found, true, strict=True)]) == ours.accuracy
    votes = sum(np.bincount(true[found == c]).max() for c in np.unique(found))
    assert ours.purity == pytest.approx(votes / 80, abs=1e-12)
    assert ours.nmi == pytest.approx(normalized_mutual_info_score(true, found), abs=1e-12)
    assert ours.ari == pytest.approx(adjusted_rand_score(true, found), abs=1e-12)
    renamed = random.permutation(100)[:clusters]
    again = agreement(renamed[found], true)
    assert (again.accuracy, again.purity) == (ours.accuracy, ours.purity)


def test_agreement_by_hand():
    classes = np.array([0, 0, 0, 1, 1, 1])
    assert agreement(np.array([7, 7, 7, 3, 3, 3]), classes) == Agreement(1.0, 1.0, 1.0, 1.0, {7: 0, 3: 1})
    # A cluster for each row: pure, but only one row of each class is matched.
    own = agreement(np.arange(6), classes)
    assert (own.accuracy, own.purity, own.ari) == (2 / 6, 1.0, 0.0)
    with pytest.raises(UsageError, match="one shape"):
        agreement(np.arange(5), classes)


def test_occupancy_by_hand():
    found = occupancy(np.array([0, 0, 2, 2]), 5)
    assert (found.shares, found.used) == ([0.5, 0, 0.5, 0, 0], 2)
    assert found.entropy == pytest.approx(math.log(2))
    assert math.copysign(1, occupancy(np.zeros(3, dtype=int), 2).entropy) == 1
    for clusters in (np.array([0, 5]), np.array([-1]), np.array([], dtype=int)):
        with pytest.raises(UsageError, match="clusters of 0 to 4"):
            occupancy(clusters, 5)


# Probes


def digits():
    bunch = load_digits()
    x, y = bunch.data, bunch.target
    return Labelled(x[:1400], y[:1400]), Labelled(x[1400:], y[1400:])


def test_neighbours_vote_as_counted_by_hand():
    train, test = digits()
    angles = 1 - unit(test.rows) @ unit(train.rows).T
    lengths = np.linalg.norm(test.rows[:, None] - train.rows, axis=2)
    for metric, gaps in (("euclidean", lengths), ("cosine", angles)):
        votes = train.labels[np.argsort(gaps, axis=1, kind="stable")[:, :5]]
        guessed = np.array([np.bincount(v, minlength=10).argmax() for v in votes])
        # Rows at equal distances may be taken in another order.
        found = neighbour_accuracy(train, test, k=5, metric=metric)
        assert found == pytest.approx(np.mean(guessed == test.labels), abs=1.01 / len(test.rows))
    with pytest.raises(UsageError, match="did you mean 'cosine'"):
        neighbour_accuracy(train, test, metric="cosin")
    with pytest.raises(UsageError, match="k of 1 to 1400"):
        neighbour_accuracy(train, test, k=1401)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_cosine_sees_angles_alone():
    angles = RANDOM(0).uniform(0, 2 * np.pi, 400)
    rows = np.stack([np.cos(angles), np.sin(angles)], 1)
    labels = (angles > np.pi).astype(int)
    long = Labelled(rows * RANDOM(1).lognormal(0, 3, 400)[:, None], labels)
    train, test = Labelled(long.rows[:300], labels[:300]), Labelled(long.rows[300:], labels[300:])
    assert neighbour_accuracy(train, test, metric="cosine") > 0.97
    assert neighbour_accuracy(train, test, metric="euclidean") < 0.97


def test_a_linear_probe_reads_what_is_linear():
    random = RANDOM(2)
    rows = random.normal(size=(600, 4)) * [1, 1e4, 1e-4, 1]
    linear, ring = (rows[:, 1] + 1e8 * rows[:, 2] > 0).astype(int), (np.square(rows[:, 0]) > 0.45).astype(int)

    def read(labels):
        return linear_accuracy(Labelled(rows[:400], labels[:400]), Labelled(rows[400:], labels[400:]))

    assert read(linear) > 0.95
    assert read(ring) < 0.65
    with pytest.raises(UsageError, match="two classes"):
        read(np.zeros(600, dtype=int))


def test_probes_stand_beside_their_baselines():
    train, test = digits()
    random = RANDOM(3)
    mixing = random.normal(size=(64, 2))

    def encoder(rows):
        # As good as can be: the class itself, read from the rows by a table.
        known = {row.tobytes(): y for part in (train, test) for row, y in zip(part.rows, part.labels, strict=True)}
        return np.eye(10)[[known[row.tobytes()] for row in rows]]

    found = compare_probes(encoder, lambda rows: rows @ mixing, train, test, labels=200)
    assert list(found) == ["embedding", "untrained", "rows"]
    best, baseline, rows = found.values()
    assert (best.linear, best.cosine, best.euclidean) == (1, 1, 1)
    assert baseline.linear < rows.linear < 1
    assert (rows.labels, rows.k) == (200, 5)
    assert rows == probe(train, test, 200)
    assert probe(train, test).labels == 1000
    few = Labelled(train.rows[:150], train.labels[:150])
    assert probe(few, test).labels == 150
    assert rows.linear < probe(train, test, 0).linear
    assert rows.stderr == pytest.approx(0.5 / math.sqrt(397))
    with pytest.raises(UsageError, match="at most 1400 labels"):
        probe(train, test, 1401)

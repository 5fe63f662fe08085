"""Flows as scikit-learn estimators: its own checks, weights against repeated rows, units, pipelines."""

import io
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from longflow import anomaly
from longflow.commands.fit import distinct
from longflow.errors import TrainingDivergedError, UsageError
from longflow.sklearn import FlowDensity, FlowOutlier
from longflow.sklearn.outlier import threshold

TINY = {"width": 4, "blocks": 1}
QUICK = FlowDensity("realnvp", options=TINY, steps=4, batch=64, random_state=0)


def small(**options):
    return FlowDensity("realnvp", options={"width": 16, "blocks": 1}, random_state=0, **options)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 1))
    return np.hstack((1000 + 5 * x, -3 + 0.1 * x**2 + 0.05 * rng.normal(size=(600, 1))))


@pytest.fixture(scope="module")
def fitted(rows):
    return small(steps=150, lr=1e-2, threads=1).fit(rows)


METHODS = [FlowOutlier(QUICK, method=method) for method in ("typicality", "ratio", "latent")]


@parametrize_with_checks([QUICK, FlowOutlier(QUICK), *METHODS[:1]])
def test_scikit_learns_own_checks(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        check(estimator)


def test_densities_are_in_the_units_of_the_rows_and_integrate_to_one(fitted, rows):
    a, b = np.meshgrid(np.linspace(970, 1030, 300), np.linspace(-4, 0, 400), indexing="ij")
    mass = np.exp(fitted.score_samples(np.stack((a.ravel(), b.ravel()), 1))).sum() * (60 / 299) * (4 / 399)
    assert mass == pytest.approx(1, abs=0.02)
    assert fitted.score(rows) == pytest.approx(fitted.score_samples(rows).mean())
    assert fitted.score_samples(rows).dtype == np.float64
    gaussian = -0.5 * (2 * (1 + np.log(2 * np.pi)) + np.log(np.linalg.det(np.cov(rows.T))))
    assert fitted.score(rows) > gaussian + 0.5


def test_rescaling_rows_moves_the_density_by_the_log_volume(rows):
    one = small(steps=20).fit(rows)
    other = small(steps=20).fit(rows * [1e-4, 1e5] + [1e6, 0])
    moved = other.score_samples(rows * [1e-4, 1e5] + [1e6, 0]) + np.log(1e-4 * 1e5)
    np.testing.assert_allclose(moved, one.score_samples(rows), atol=2e-3)


def test_samples_are_like_the_rows(fitted, rows):
    drawn = fitted.sample(4000, random_state=1)
    assert drawn.shape == (4000, 2)
    np.testing.assert_allclose((drawn.mean(0) - rows.mean(0)) / rows.std(0), 0, atol=0.25)
    np.testing.assert_allclose(np.log(drawn.std(0)), np.log(rows.std(0)), atol=0.3)
    np.testing.assert_array_equal(drawn, fitted.sample(4000, random_state=1))
    assert fitted.sample(0).shape == (0, 2)


@pytest.mark.parametrize("estimator", [QUICK, *(FlowOutlier(QUICK, method=o.method, random_state=0) for o in METHODS)])
def test_a_weight_is_how_often_a_row_counts(estimator, rows):
    weights = np.random.default_rng(1).integers(0, 4, size=200)
    x = rows[:200]
    weighted = clone(estimator).fit(x, sample_weight=weights)
    repeated = clone(estimator).fit(np.repeat(x, weights, axis=0))
    np.testing.assert_allclose(weighted.score_samples(rows), repeated.score_samples(rows), rtol=1e-9)
    if isinstance(estimator, FlowOutlier):
        assert weighted.offset_ == pytest.approx(repeated.offset_, rel=1e-9)


def test_the_default_is_a_spline_flow_and_one_column_takes_an_autoregressive_one():
    x = np.random.default_rng(0).gamma(2.0, size=(500, 1))
    assert FlowDensity(steps=2).fit(np.hstack((x, x**2))).score_samples([[1.0, 1.0]]).shape == (1,)
    with pytest.raises(ValueError, match="autoregressive"):
        FlowDensity(steps=2).fit(x)
    options = {"kind": "autoregressive", "layers": 2, "hidden": 4}
    one = FlowDensity(options=options, steps=60, lr=1e-2, random_state=0).fit(x)
    line = np.linspace(-30, 60, 9001)[:, None]
    assert np.exp(one.score_samples(line)).sum() * 0.01 == pytest.approx(1, abs=1e-2)


def test_declared_supports_hold_all_the_mass_and_whole_numbers_have_probabilities():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"wait": rng.exponential(size=800), "count": rng.poisson(2.0, 800), "z": 1e6 + rng.normal(size=800)}
    )
    density = small(steps=120, lr=1e-2, supports={"wait": "0:", 1: "integer 0:"}).fit(table)
    drawn = density.sample(500, random_state=0)
    assert (drawn[:, 0] > 0).all()
    assert (drawn[:, 1] == np.rint(drawn[:, 1])).all()
    assert drawn[:, 1].min() >= 0
    a, b, c = np.meshgrid(np.linspace(0.005, 12, 240), np.arange(15.0), 1e6 + np.linspace(-5, 5, 41), indexing="ij")
    grid = pd.DataFrame({"wait": a.ravel(), "count": b.ravel(), "z": c.ravel()})
    mass = np.exp(density.score_samples(grid)).sum() * (11.995 / 239) * (10 / 40)
    assert mass == pytest.approx(1, abs=0.1)
    np.testing.assert_array_equal(density.score_samples(table), density.score_samples(table))
    outside = pd.DataFrame({"wait": [-1.0, 1.0], "count": [1.0, 1.5], "z": [1e6, 1e6]})
    assert density.score_samples(outside).tolist() == [-np.inf, -np.inf]
    with pytest.raises(UsageError, match="outside its declared support"):
        clone(density).set_params(supports={"z": "0:5"}).fit(table)
    with pytest.raises(UsageError, match="did you mean 'wait'"):
        clone(density).set_params(supports={"wiat": "0:"}).fit(table)
    with pytest.raises(UsageError, match="columns 0 to 2"):
        clone(density).set_params(supports={3: "0:"}).fit(table)


def test_weights_are_those_of_the_likelihood():
    """Rows of two normals, the second of which weighs nothing but a tenth: so much of the mass is there."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 2))
    x[1000:, 0] += 8
    weights = np.repeat([0.9, 0.1], 1000)
    fitted = small(steps=150, lr=1e-2).fit(x, sample_weight=weights)
    assert (fitted.sample(4000, random_state=0)[:, 0] > 4).mean() == pytest.approx(0.1, abs=0.05)
    assert fitted.mean_[0] == pytest.approx(0.8, abs=0.1)


def test_equal_rows_are_one_and_no_row_is_trained_on_and_held_out():
    x = np.array([[1.0, -0.0], [0.0, 2.0], [1.0, 0.0], [5.0, 5.0]])
    found, weights = distinct(x, np.array([1.0, 2.0, 3.0, 0.0]))
    np.testing.assert_array_equal(found, [[0.0, 2.0], [1.0, 0.0]])
    np.testing.assert_array_equal(weights, [2.0, 4.0])


def test_a_seed_fixes_the_fit_and_torchs_generator_is_left_alone(rows):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads, one = torch.get_num_threads(), clone(QUICK).fit(rows[::-1])
    one.sample(3)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    np.testing.assert_array_equal(one.score_samples(rows), clone(QUICK).fit(rows).score_samples(rows))
    other = clone(QUICK).set_params(random_state=1).fit(rows)
    assert not np.array_equal(other.score_samples(rows), one.score_samples(rows))


def test_training_stops_early_and_keeps_the_best_weights():
    x = np.random.default_rng(0).normal(size=(60, 5))
    fitted = small(steps=2000, lr=3e-2, patience=2, validation_fraction=0.3).fit(x)
    assert fitted.best_step_ + 2 * 50 <= fitted.n_iter_ < 2000
    every = clone(QUICK).set_params(validation_fraction=0.0).fit(x)
    assert every.n_iter_ == every.best_step_ == 4
    assert np.isnan(every.validation_score_)


def test_float64_trains_in_float64(rows):
    close = small(steps=20, dtype="float64").fit(rows).score_samples(rows)
    np.testing.assert_allclose(close, small(steps=20).fit(rows).score_samples(rows), atol=1e-2)
    assert not np.array_equal(close, small(steps=20).fit(rows).score_samples(rows))


def test_it_stands_in_pipelines_grids_and_pickles(rows, fitted):
    table = pd.DataFrame(rows, columns=["height", "weight"])
    pipe = make_pipeline(StandardScaler(), clone(QUICK)).fit(table)
    assert pipe.score_samples(table).shape == (600,)
    search = GridSearchCV(clone(QUICK), {"lr": [1e-3, 1e-5], "options": [TINY, {"width": 8, "blocks": 1}]}, cv=2)
    assert set(search.fit(table).best_params_) == {"lr", "options"}
    named = clone(QUICK).fit(table)
    assert named.feature_names_in_.tolist() == ["height", "weight"]
    with pytest.raises(ValueError, match="feature names"):
        named.score_samples(table[["weight", "height"]])
    again = pickle.load(io.BytesIO(pickle.dumps(fitted)))
    np.testing.assert_array_equal(again.score_samples(rows), fitted.score_samples(rows))
    nested = clone(FlowOutlier(QUICK)).set_params(density__lr=0.5)
    assert nested.density.lr == 0.5
    assert QUICK.lr == 1e-3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "realnpv"}, "did you mean 'realnvp'"),
        ({"model": "vae"}, "expected a flow"),
        ({"options": {"widht": 3}}, "did you mean 'width'"),
        ({"steps": 0}, "steps >= 1"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"dtype": "float16"}, "dtype"),
        ({"threads": 0}, "threads"),
        ({"device": "tpu"}, "device"),
    ],
)
def test_bad_parameters_are_told(change, says, rows):
    with pytest.raises(UsageError, match=says):
        clone(QUICK).set_params(**change).fit(rows)


def test_bad_rows_are_told(rows):
    table = pd.DataFrame(rows, columns=["height", "weight"])
    with pytest.raises(ValueError, match="column 'weight' has the same value"):
        clone(QUICK).fit(table.assign(weight=3.0))
    with pytest.raises(ValueError, match="contains NaN"):
        clone(QUICK).fit(table.replace({"weight": {table.weight[0]: np.nan}}))
    with pytest.raises(ValueError, match="weights >= 0; -1 came"):
        clone(QUICK).fit(table, sample_weight=np.full(600, -1.0))
    with pytest.raises(ValueError, match="n_features = 1"):
        clone(QUICK).fit(rows[:, :1])
    with pytest.raises(UsageError, match="contamination"):
        FlowOutlier(QUICK, contamination=0.7).fit(rows)
    with pytest.raises(UsageError, match="did you mean 'latent'"):
        FlowOutlier(QUICK, method="latents").fit(rows)
    with pytest.raises(TrainingDivergedError):
        clone(QUICK).set_params(lr=1e30, steps=40).fit(rows)


def test_outliers_are_found_and_scores_are_those_of_the_room():
    x, _ = load_wine(return_X_y=True)
    rng = np.random.default_rng(0)
    odd = rng.permuted(x, axis=0)[:12]
    every, labels = np.concatenate((x, odd)), np.repeat([0, 1], [len(x), 12])
    density = small(steps=80, lr=1e-2, patience=0)
    found = FlowOutlier(density, contamination=12 / 190, random_state=0).fit(every)
    assert roc_auc_score(labels, -found.score_samples(every)) > 0.75
    assert (found.predict(every) == -1).sum() == 12
    np.testing.assert_array_equal(found.predict(every) == -1, found.decision_function(every) < 0)
    nats = torch.from_numpy(found.density_.score_samples(every))
    np.testing.assert_allclose(found.score_samples(every), nats.numpy())
    typical = FlowOutlier(density, method="typicality", random_state=0).fit(every)
    assert typical.entropy_ == pytest.approx(anomaly.entropy(nats))
    np.testing.assert_allclose(typical.score_samples(every), -anomaly.atypicality(nats, typical.entropy_).numpy())


def test_the_offset_is_between_scores_and_leaves_the_share_below():
    scores, ones = np.arange(10.0), np.ones(10)
    assert threshold(scores, ones, 0.3) == 2.5
    assert threshold(scores, ones, 0.31) == 3.5
    assert threshold(scores, np.arange(10.0), 0.3) == 5.5
    assert threshold(np.array([1.0, 1.0]), np.ones(2), 0.5) == 1.0

"""Tables as people have them: types kept, supports declared at the doors, and the five tables of MAF's paper."""

import json

import h5py
import numpy as np
import pandas as pd
import pytest
from doors import answer, refused

from longflow.commands.configure import Settings
from longflow.commands.simplest import background_bits, baselines
from longflow.commands.tables import columns_of, write_table
from longflow.commands.train import train_run
from longflow.data import CATALOGUE, load, read
from longflow.data.density_tables import MOST_REPEATS
from longflow.errors import UsageError
from longflow.training import Recipe

SUPPORTS = ("age=integer 0:120", "income=0:", "share=0:1", "kids=integer 0:", "flag=integer 0:1")


def frame(n=200):
    r = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": r.integers(0, 91, n),
            "income": np.exp(r.normal(10, 1, n)),
            "share": r.beta(0.5, 0.5, n),
            "kids": r.poisson(1.2, n).astype(np.int16),
            "temp": r.normal(20, 5, n).astype(np.float32),
            "flag": r.random(n) < 0.3,
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    frame().to_parquet(folder / "t.parquet")
    settings = Settings(data=str(folder / "t.parquet"), out=str(folder / "run"), steps=20, support=SUPPORTS, threads=1)
    train_run("nice", settings, Recipe(batch=32), {"hidden": 16, "depth": 1})
    return folder


def test_types_of_columns_are_read(tmp_path):
    frame().to_parquet(tmp_path / "t.parquet")
    frame().assign(temp=1.5).to_csv(tmp_path / "t.csv", index=False)
    np.save(tmp_path / "t.npy", np.arange(40).reshape(20, 2))
    names = {"age": "int64", "income": "float64", "share": "float64", "kids": "int16", "temp": "float32"}
    assert read(tmp_path / "t.parquet").dtypes == {**names, "flag": "bool"}
    assert read(tmp_path / "t.csv").dtypes == {**names, "kids": "int64", "temp": "float64", "flag": "bool"}
    assert read(tmp_path / "t.npy").dtypes == {"x1": "int64", "x2": "int64"}
    nullable = pd.DataFrame({"a": pd.array([1, 2] * 9, dtype="UInt8"), "b": pd.array([True, False] * 9, "boolean")})
    nullable.to_parquet(tmp_path / "n.parquet")
    assert read(tmp_path / "n.parquet").dtypes == {"a": "uint8", "b": "bool"}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_samples_have_the_columns_and_types_of_the_data(trained, tmp_path, capsys, suffix):
    out = tmp_path / f"new.{suffix}"
    answer(capsys, "sample", trained / "run", "-n", 50, "--out", out)
    drawn = pd.read_csv(out) if suffix == "csv" else pd.read_parquet(out)
    wide = {"kids": "int64", "temp": "float64"} if suffix == "csv" else {}
    assert drawn.dtypes.astype(str).to_dict() == {**frame().dtypes.astype(str).to_dict(), **wide}
    assert len(drawn) == 50
    assert drawn.age.between(0, 120).all()
    assert drawn.share.between(0, 1).all()
    assert (drawn[["income", "kids"]] >= 0).all(axis=None)


def test_scores_as_parquet_are_those_of_csv(trained, tmp_path, capsys):
    for suffix in ("csv", "parquet"):
        told = answer(capsys, "score", trained / "run", trained / "t.parquet", "--out", tmp_path / f"s.{suffix}")
        assert told["likelihood"] == "lower bound"
    a, b = pd.read_csv(tmp_path / "s.csv"), pd.read_parquet(tmp_path / "s.parquet")
    assert list(a) == list(b) == ["log_prob", "bits_per_dim"]
    np.testing.assert_allclose(a, b, rtol=1e-8)
    assert len(a) == 200
    assert np.isfinite(a).all(axis=None)


def test_a_run_keeps_its_supports_and_resumes_with_them(trained, capsys):
    config = json.loads((trained / "run" / "config.json").read_text())
    assert config["supports"] == ["integer 0:120", "0:", "0:1", "integer 0:", None, "integer 0:1"]
    assert config["data"]["dtypes"]["kids"] == "int16"
    assert config["likelihood"] == "lower bound"
    resumed = answer(capsys, "train", "nice", "--out", trained / "run", "--resume", "--steps", 25)
    assert resumed["likelihood"] == "lower bound"
    again = ["train", "nice", "--out", trained / "run", "--resume"]
    one = ["--support", "share=0:1", "--support", "age = integer 0:120.0", "--support", "temp=real"]
    assert answer(capsys, *again, "--steps", 26, *one)["likelihood"] == "lower bound"
    assert json.loads((trained / "run" / "config.json").read_text())["supports"] == config["supports"]
    for support, told in (
        ("age=integer", "trained with age=integer 0:120; age=integer came"),
        ("age=real", "age=real came"),
        ("temp=0:", "trained with temp=real; temp=0: came"),
        ("tmp=0:", "did you mean 'temp'"),
    ):
        assert told in refused(capsys, *again, "--steps", 30, "--support", support)


def test_values_outside_a_declared_support_are_refused_at_every_door(trained, tmp_path, capsys):
    frame().assign(share=1.5).iloc[:3].to_csv(tmp_path / "bad.csv", index=False)
    told = refused(capsys, "score", trained / "run", tmp_path / "bad.csv")
    assert "column 'share' has 1.5 at line 2, outside its declared support '0:1' (2 more like it)" in told
    frame().assign(kids=lambda t: t.kids - 1).to_csv(tmp_path / "other.csv", index=False)
    assert "column 'kids' has -1 at row" in refused(
        capsys, "evaluate", trained / "run", "--data", tmp_path / "other.csv"
    )
    given = ("--data", trained / "t.parquet", "--out", tmp_path / "new", "--steps", 2)
    for support, says in (
        ("agee=integer", "did you mean 'age'"),
        ("age=whole", "expected a support"),
        ("age=integer 0:50", "column 'age' has"),
        ("temp=integer", "column 'temp' has"),
    ):
        assert says in refused(capsys, "train", "nice", *given, "--support", support)
    assert not (tmp_path / "new").exists()
    assert "levels" in refused(capsys, "train", "nice", "--support", "x1=0:", "--out", tmp_path / "new")


def test_whole_numbers_taken_as_real_are_warned_of_once(tmp_path, capsys):
    frame()[["age", "temp"]].to_csv(tmp_path / "t.csv", index=False)
    settings = Settings(data=str(tmp_path / "t.csv"), out=str(tmp_path / "run"), steps=4, threads=1)
    train_run("nice", settings, Recipe(batch=32), {"hidden": 4, "depth": 1})
    told = capsys.readouterr().err
    assert told.count("column 'age' has whole numbers") == 1
    assert "its likelihood means nothing" in told
    answer(capsys, "sample", tmp_path / "run", "-n", 9, "--out", tmp_path / "s.parquet")
    assert pd.read_parquet(tmp_path / "s.parquet").age.dtype == np.float64


def test_fewer_rows_than_columns_train(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(12, 30))
    np.save(tmp_path / "t.npy", x)
    settings = Settings(data=str(tmp_path / "t.npy"), out=str(tmp_path / "run"), steps=4, threads=1)
    train_run("nice", settings, Recipe(batch=10), {"hidden": 4, "depth": 1})
    assert "10 training rows for 30 columns" in capsys.readouterr().err


def test_one_column_is_data_and_models_say_whether_they_take_it(tmp_path, capsys):
    np.save(tmp_path / "t.npy", np.random.default_rng(0).normal(size=(30, 1)))
    assert load(tmp_path / "t.npy").shape == (1,)
    told = refused(capsys, "train", "nice", "--data", tmp_path / "t.npy", "--out", tmp_path / "run")
    assert "nice expects events of at least 2 numbers" in told


def test_a_table_of_one_column_goes_through_every_door(tmp_path, capsys):
    pd.DataFrame({"w": np.exp(np.random.default_rng(0).normal(size=100))}).to_csv(tmp_path / "t.csv", index=False)
    flags = ("--layers", 1, "--hidden", 8, "--depth", 1, "--steps", 4, "--threads", 1, "--support", "w=0:")
    told = answer(capsys, "train", "maf", "--data", tmp_path / "t.csv", "--out", tmp_path / "run", *flags)
    assert told["likelihood"] == "exact"
    answer(capsys, "sample", tmp_path / "run", "-n", 9, "--out", tmp_path / "s.csv")
    assert (pd.read_csv(tmp_path / "s.csv").w > 0).all()
    assert answer(capsys, "check", tmp_path / "run")["passed"]


def test_columns_with_supports_beside_contexts(tmp_path, capsys):
    frame()[["kids", "temp", "age", "income"]].to_parquet(tmp_path / "t.parquet")
    settings = Settings(
        data=str(tmp_path / "t.parquet"),
        out=str(tmp_path / "run"),
        steps=4,
        threads=1,
        context=("age",),
        support=("kids=integer 0:", "income=0:"),
    )
    train_run("nice", settings, Recipe(batch=32), {"hidden": 8, "depth": 1})
    answer(capsys, "sample", tmp_path / "run", "-n", 20, "--out", tmp_path / "s.parquet")
    drawn = pd.read_parquet(tmp_path / "s.parquet")
    assert drawn.dtypes.equals(frame()[list(drawn)].dtypes)
    assert list(drawn) == ["kids", "temp", "age", "income"]
    assert (drawn[["kids", "income"]] >= 0).all(axis=None)
    assert answer(capsys, "evaluate", tmp_path / "run")["likelihood"] == "lower bound"
    assert "'age' is a context" in refused(
        capsys, "train", "nice", "--data", tmp_path / "t.parquet", "--context", "age", "--support", "age=integer"
    )


def test_columns_are_typed_only_where_their_values_allow_it():
    rows = np.array([[1.0, -1.0, 300.0, 2.5, np.nan], [0.0, 3.0, 4.0, 2.0, 1.0]])
    config = {"data": {"dtypes": {"a": "bool", "b": "uint8", "c": "uint8", "d": "int64", "e": "int64"}}}
    typed = columns_of(rows, list("abcde"), config)
    assert [v.dtype.name for v in typed.values()] == ["bool", "int64", "int64", "float64", "float64"]
    assert typed["b"].tolist() == [-1, 3]
    assert columns_of(rows[:, :1], ["a"], {})["a"].dtype == np.float64


def test_floats_come_back_from_csv_as_they_were(tmp_path):
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32) * np.float32(1e6)
    write_table(tmp_path / "t.csv", {"a": values, "b, c": np.arange(1000)})
    back = pd.read_csv(tmp_path / "t.csv")
    assert (back["a"].to_numpy().astype(np.float32) == values).all()
    assert back["b, c"].dtype == np.int64


def test_parquet_without_its_packages_is_told_before_anything_is_drawn(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    told = refused(capsys, "sample", trained / "run", "--out", tmp_path / "s.parquet")
    assert "pip install longflow[tables]" in told


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFLOW_DATA", str(tmp_path))
    for name in ("power", "gas", "hepmass", "miniboone", "BSDS300"):
        (tmp_path / name).mkdir()
    return tmp_path


def splits(name):
    data = load(name)
    return [data.splits[s].astype(np.float64) for s in ("train", "validation", "test")]


def test_power(home):
    x = np.random.default_rng(1).normal(size=(100, 8))
    np.save(home / "power" / "data.npy", x)
    train, validation, test = splits("power")
    assert [len(train), len(validation), len(test)] == [81, 9, 10]
    # The generator of the paper: a shuffle, then the noise of voltage, of active power and of three meters.
    rng = np.random.RandomState(42)
    order = np.arange(100)
    rng.shuffle(order)
    voltage, active, meters = rng.rand(100), rng.rand(100), rng.rand(100, 3)
    shuffled = x[order]
    expected = np.stack(
        [
            shuffled[:, 0] + 0.001 * active,
            shuffled[:, 2] + 0.01 * voltage,
            *(shuffled[:, 4:7] + meters).T,
            shuffled[:, 7],
        ],
        1,
    )
    expected = (expected - expected[:90].mean(0)) / expected[:90].std(0)
    np.testing.assert_allclose(np.concatenate([train, validation, test]), expected, atol=1e-5)


@pytest.mark.parametrize("suffix", ["txt", "npy", "csv", "parquet"])
def test_gas(home, suffix):
    r = np.random.default_rng(2)
    a, b, c = r.normal(size=(3, 50))
    # The first is like the second, which is like the third; the last is the opposite of the fourth, which is unlike.
    sensors = np.stack([a, a + 0.01 * b, a + 0.02 * b, 5 + 3 * c, -c], 1)
    x = np.concatenate([r.normal(size=(50, 3)), sensors], 1)
    path = home / "gas" / f"ethylene_CO.{suffix}"
    if suffix == "npy":
        np.save(path, x)
    elif suffix == "parquet":
        pd.DataFrame(x, columns=list("abcdefgh")).to_parquet(path)
    else:
        delimiter = "," if suffix == "csv" else " "
        np.savetxt(path, x, delimiter=delimiter, header="Time (seconds), CO conc (ppm), ...", comments="")
    train, validation, test = splits("gas")
    kept = sensors[:, 2:]
    expected = (kept - kept.mean(0)) / kept.std(0, ddof=1)
    assert [len(train), len(validation), len(test)] == [41, 4, 5]
    np.testing.assert_allclose(np.concatenate([train, validation, test]), expected, atol=1e-5)
    assert load("gas").name == ("gas (all rows of the public text)" if suffix == "txt" else "gas")


def test_gas_reads_no_pickle(home, capsys):
    (home / "gas" / "ethylene_CO.pickle").write_bytes(b"\x80")
    assert "a pickle is not read" in refused(capsys, "train", "nice", "--data", "gas")


def test_hepmass(home):
    r = np.random.default_rng(3)
    train, test = r.normal(size=(60, 4)), r.normal(size=(20, 5))
    train[:, 0], test[:, 0] = np.arange(60) % 2, np.arange(20) % 2
    train[:, 2] = np.maximum(train[:, 2], 0)  # its least value comes more than five times
    for name, x in (("train", train), ("test", test)):
        names = "# label," + ",".join(f"f{k}" for k in range(x.shape[1] - 1))
        np.savetxt(home / "hepmass" / f"1000_{name}.csv", x, delimiter=",", header=names, comments="")
    found = splits("hepmass")
    own, held = train[1::2][:, [1, 3]], test[1::2][:, [1, 3]]
    assert (train[1::2, 2] == 0).sum() > MOST_REPEATS
    mean, std = own.mean(0), own.std(0, ddof=1)
    for part, expected in zip(found, (own[:27], own[27:], held), strict=True):
        np.testing.assert_allclose(part, (expected - mean) / std, atol=1e-5)


def test_miniboone_and_bsds300(home):
    x = np.random.default_rng(4).normal(3, 2, size=(57, 4))
    np.save(home / "miniboone" / "data.npy", x)
    train, validation, test = splits("miniboone")
    assert [len(train), len(validation), len(test)] == [47, 5, 5]
    expected = (x - x[:52].mean(0)) / x[:52].std(0)
    np.testing.assert_allclose(np.concatenate([train, validation, test]), expected, atol=1e-5)
    with h5py.File(home / "BSDS300" / "BSDS300.hdf5", "w") as file:
        for name, part in (("train", x[:30]), ("validation", x[30:40]), ("test", x[40:])):
            file[name] = part
    np.testing.assert_allclose(np.concatenate(splits("bsds300")), x, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("power", "power/data.npy"),
        ("gas", "gas/ethylene_CO.parquet"),
        ("hepmass", "hepmass/1000_train.csv"),
        ("miniboone", "miniboone/data.npy"),
        ("bsds300", "BSDS300/BSDS300.hdf5"),
    ],
)
def test_absent_tables_say_where_they_belong(home, name, file):
    with pytest.raises(UsageError) as caught:
        CATALOGUE[name].load()
    line = str(caught.value)
    assert name in line
    assert file in line
    assert "zenodo.org/records/1161203" in line
    assert "LONGFLOW_DATA" in line


def test_damaged_tables_are_told(home, capsys):
    np.save(home / "power" / "data.npy", np.zeros((20, 6)))
    assert "has 6 columns; expected 8" in refused(capsys, "train", "nice", "--data", "power")
    (home / "miniboone" / "data.npy").write_bytes(b"\x93NUMPY")
    assert "data.npy cannot be read" in refused(capsys, "train", "nice", "--data", "miniboone")


def test_a_file_without_rows_is_told(trained, tmp_path, capsys):
    (tmp_path / "head.csv").write_text(",".join(frame().columns) + "\n")
    assert "head.csv has no rows" in refused(capsys, "score", trained / "run", tmp_path / "head.csv")


def test_simplest_models_of_whole_columns_are_dequantised(tmp_path):
    """What a context tells of an independent column is nothing, whether that column is whole or not."""
    r = np.random.default_rng(0)
    flag, c = (r.random(3000) < 0.3).astype(int), r.normal(size=3000)
    pd.DataFrame({"flag": flag, "x": r.normal(size=3000), "c": c}).to_csv(tmp_path / "t.csv", index=False)
    data = load(tmp_path / "t.csv", context=("c",)).declare(("flag=integer 0:1",))
    found = {name: value["bits_per_dim"] for name, value in baselines(data).items()}
    assert found["Gaussian given the context"] == pytest.approx(found["Gaussian"], abs=5e-3)
    variance = data.split("test")[:, 0].var() + 1 / 12
    assert found["Gaussian"] == pytest.approx(0.25 * np.log2((2 * np.pi * np.e) ** 2 * variance), abs=0.05)
    assert background_bits(data, data.split("test")).mean() == pytest.approx(found["Gaussian"])


def test_a_gaussian_of_collinear_columns_is_no_background(tmp_path):
    x = np.random.default_rng(0).normal(size=(100, 1))
    np.save(tmp_path / "t.npy", np.hstack((x, 2 * x)))
    data = load(tmp_path / "t.npy")
    assert baselines(data) == {}
    with pytest.raises(UsageError, match="use --background"):
        background_bits(data, data.split("test"))

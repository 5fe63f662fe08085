"""The data room: every format from files that the tests write, every bad input in one line, and no network."""

import gc
import gzip
import hashlib
import io
import os
import re
import struct
import sys
import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pooch
import pytest
from PIL import Image

from longflow.data import CATALOGUE, SPLITS, Dataset, cifar, load, mnist, read
from longflow.data.splitting import cut, fill
from longflow.errors import UsageError

TOYS = ("two-moons", "rings", "checkerboard", "pinwheel", "eight-gaussians")
RNG = np.random.default_rng(7)
POINTS = RNG.normal(size=(50, 3))
BYTES = RNG.integers(0, 256, (20, 3, 4, 5), dtype=np.uint8)


def refused(*words, call=load, args=()):
    """Call, expect a UsageError of one line that says every one of `words`, and return the line."""
    with pytest.raises(UsageError) as caught:
        call(*args)
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line
    return line


def with_value(x, row, column, value):
    y = np.array(x)
    y[row, column] = value
    return y


def made(**changes):
    splits = {"train": BYTES[:12], "validation": BYTES[12:15], "test": BYTES[15:]}
    return Dataset(**({"name": "made", "splits": splits, "levels": 256} | changes))


def points(**changes):
    x = POINTS.astype(np.float32)
    return {"train": x[:30], "validation": x[30:40], "test": x[40:]} | changes


# The data set


def test_derived_values():
    data = made()
    assert (data.shape, data.dims, data.sizes) == ((3, 4, 5), 60, {"train": 12, "validation": 3, "test": 5})
    np.testing.assert_array_equal(data.split("test"), BYTES[15:])
    assert data.describe() == (f"made: 3x4x5, 256 levels, train 12, validation 3, test 5, sha256 {data.sha256[:12]}")
    assert "3, continuous, train 30" in Dataset("p", points(), None).describe()


def test_arrays_are_made_contiguous():
    splits = {s: np.moveaxis(x, 1, -1) for s, x in made().splits.items()}
    assert all(x.flags.c_contiguous for x in made(splits=splits).splits.values())


def test_hash_is_that_of_the_content():
    digest = hashlib.sha256()
    for x in made().splits.values():
        digest.update(f"|u1{x.shape}".encode() + x.tobytes())
    assert made(name="other").sha256 == made().sha256 == digest.hexdigest()
    changed = {**made().splits, "test": 255 - BYTES[15:]}
    reshaped = {s: x.reshape(-1, 60) for s, x in made().splits.items()}
    assert len({made().sha256, made(splits=changed).sha256, made(splits=reshaped).sha256}) == 3
    assert made(splits={**made().splits, "test": BYTES[:0]}).sha256 != made().sha256


@pytest.mark.parametrize("levels", [2, 3, 32, 255, 256])
def test_quantise_is_floor(levels):
    data = made().quantise(levels)
    expected = np.floor(BYTES[:12].astype(float) * levels / 256)
    np.testing.assert_array_equal(data.splits["train"], expected)
    assert (data.levels, data.splits["train"].dtype) == (levels, np.uint8)


def test_quantise_refuses():
    refused("256 levels", "got 257", call=made().quantise, args=(257,))
    refused("got 1", call=made().quantise, args=(1,))
    refused("continuous", call=Dataset("p", points(), None).quantise, args=(8,))


def test_split_refuses():
    refused("unknown split 'tests'", "did you mean 'test'", call=made().split, args=("tests",))
    empty = made(splits={**made().splits, "test": BYTES[:0]})
    refused("the test split is empty", call=empty.split, args=("test",))


BAD = {
    "no test": ({"splits": {"train": BYTES, "validation": BYTES}}, "train, validation, test"),
    "empty train": ({"splits": {**made().splits, "train": BYTES[:0]}}, "train split is empty"),
    "shapes": ({"splits": {**made().splits, "test": BYTES[:, :1]}}, "differ in shape"),
    "no value": ({"splits": dict.fromkeys(SPLITS, BYTES[:, :0, 0, 0])}, "needs a value"),
    "one level": ({"levels": 1}, "2 … 256 levels, got 1"),
    "value": ({"levels": 8}, "8 levels are 0 … 7"),
    "float levels": ({"splits": points()}, "expected uint8 values in train, got float32"),
    "uint8 floats": ({"levels": None}, "expected float32 values in train, got uint8"),
    "nan": ({"splits": points(test=with_value(points()["test"], 2, 1, np.nan)), "levels": None}, "row 2, feature 1"),
    "constant": ({"splits": points(train=points()["train"] * np.float32([1, 0, 1])), "levels": None}, "feature 1 has"),
    "constants": ({"splits": points(train=points()["train"] * np.float32([0, 0, 1])), "levels": None}, "1 more"),
    "labels dtype": ({"labels": {s: np.zeros(len(x)) for s, x in made().splits.items()}}, "int64 labels"),
    "labels size": ({"labels": dict.fromkeys(SPLITS, np.zeros(12, np.int64))}, "(3,) for validation"),
    "labels split": ({"labels": {"train": np.zeros(12, np.int64)}}, "got none"),
    "columns": ({"splits": points(), "levels": None, "columns": ("a", "b")}, "2 column names"),
}


@pytest.mark.parametrize("case", BAD)
def test_construction_refuses(case):
    changes, word = BAD[case]
    refused("made", word, call=partial(made, **changes))


def test_constant_values_are_fine_with_levels():
    assert made(splits={s: x * 0 for s, x in made().splits.items()}).levels == 256


# Splitting


def test_cut_is_a_fixed_partition():
    rows = np.arange(57)
    parts = cut(rows, {"validation": 5, "test": 9})
    assert {s: len(x) for s, x in parts.items()} == {"train": 43, "validation": 5, "test": 9}
    np.testing.assert_array_equal(np.concatenate(list(parts.values())), np.random.default_rng(0).permutation(57))


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        (("train",), (40, 5, 5)),
        (("train", "test"), (45, 5, 50)),
        (("train", "validation"), (45, 50, 5)),
        (SPLITS, (50, 50, 50)),
    ],
)
def test_fill(given, sizes):
    filled = fill("it", dict.fromkeys(given, np.arange(50)))
    assert tuple(filled) == SPLITS
    assert tuple(map(len, filled.values())) == sizes


def test_fill_needs_ten_rows_only_to_cut():
    refused("9 rows", "at least 10", call=fill, args=("it", {"train": np.arange(9)}))
    assert [len(x) for x in fill("it", {"train": np.arange(10)}).values()] == [8, 1, 1]
    assert fill("it", dict.fromkeys(SPLITS, np.arange(2)))["train"].tolist() == [0, 1]


# The catalogue


def test_digits():
    data = load("digits")
    assert (data.shape, data.levels) == ((1, 8, 8), 17)
    assert data.sizes == {"train": 1257, "validation": 180, "test": 360}
    from sklearn.datasets import load_digits

    order = np.random.default_rng(0).permutation(1797)
    np.testing.assert_array_equal(data.splits["train"][:, 0], load_digits().images[order[:1257]])
    np.testing.assert_array_equal(data.labels["test"], load_digits().target[order[-360:]])
    assert load("digits", levels=4).levels == 4


@pytest.mark.parametrize("name", TOYS)
def test_toys(name):
    data = load(name)
    assert (data.shape, data.levels) == ((2,), None)
    assert data.sizes == {"train": 10_000, "validation": 2_000, "test": 5_000}
    assert load(name).sha256 == data.sha256
    x = data.splits["train"]
    assert 2.5 < np.abs(x).max() < 5
    assert np.abs(x.mean(0) - data.splits["test"].mean(0)).max() < 0.15


def test_toys_are_what_they_are_called():
    board = np.floor(load("checkerboard").splits["train"] / 2).astype(int)
    assert set(board.sum(1) % 2) == {0}
    assert len(np.unique(board, axis=0)) == 8
    radius = np.hypot(*load("rings").splits["train"].T)
    assert np.abs(radius - 0.75 * np.round(radius / 0.75).clip(1, 4)).std() < 0.08
    x = load("eight-gaussians").splits["train"] * np.sqrt(2)
    turns = np.round(np.arctan2(x[:, 1], x[:, 0]) / (np.pi / 4)) * np.pi / 4
    residual = x - 4 * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    assert residual.std() == pytest.approx(0.5, abs=0.02)


def test_catalogue_is_told_in_one_line_each():
    assert all(source.about and "\n" not in source.about for source in CATALOGUE.values())


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("minst", ["unknown data set 'minst'", "did you mean 'mnist'"]),
        ("no/such", ["no file or folder no/such"]),
        ("gone.csv", ["no file or folder gone.csv"]),
    ],
)
def test_unknown_names(spec, words):
    refused(*words, args=(spec,))


def test_unknown_suffix(tmp_path):
    (tmp_path / "a.txt").write_text("1 2")
    refused("a.txt", ".npz, .npy, .csv, .parquet", args=(tmp_path / "a.txt",))


# MNIST and CIFAR-10, in small


def idx(x):
    return struct.pack(f">4B{x.ndim}I", 0, 0, 8, x.ndim, *x.shape) + x.astype(np.uint8).tobytes()


IMAGES = RNG.integers(0, 256, (30, 28, 28), dtype=np.uint8)
IDX = {
    "train-images-idx3-ubyte": idx(IMAGES[:20]),
    "train-labels-idx1-ubyte": idx(np.arange(20) % 10),
    "t10k-images-idx3-ubyte": idx(IMAGES[20:]),
    "t10k-labels-idx1-ubyte": idx(np.arange(10) % 3),
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """LONGFLOW_DATA, with the data sets made small and nothing to be downloaded."""
    monkeypatch.setenv("LONGFLOW_DATA", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(mnist, "TRAIN", 16)
    monkeypatch.setattr(mnist, "VALIDATION", 4)
    monkeypatch.setattr(mnist, "TEST", 10)
    monkeypatch.setattr(cifar, "BATCH_ROWS", 6)
    monkeypatch.setattr(cifar, "VALIDATION", 4)
    for name in ("mnist.MNIST_URL", "mnist.FASHION_URL"):
        monkeypatch.setattr(f"longflow.data.{name}", "http://127.0.0.1:9/")
    monkeypatch.setattr(cifar, "URL", "http://127.0.0.1:9/cifar.tar.gz")
    return tmp_path / "home"


def write_idx(folder, pack=gzip.compress, suffix=".gz"):
    folder.mkdir(parents=True, exist_ok=True)
    for stem, content in IDX.items():
        (folder / f"{stem}{suffix}").write_bytes(pack(content))


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize(("pack", "suffix"), [(gzip.compress, ".gz"), (bytes, "")])
def test_mnist(home, name, pack, suffix):
    write_idx(home / name, pack, suffix)
    data = load(name)
    assert (data.name, data.shape, data.levels) == (name, (1, 28, 28), 256)
    assert data.sizes == {"train": 16, "validation": 4, "test": 10}
    np.testing.assert_array_equal(np.concatenate([data.splits[s] for s in SPLITS])[:, 0], IMAGES)
    assert data.labels["validation"].tolist() == [6, 7, 8, 9]


TRAIN_IMAGES = IDX["train-images-idx3-ubyte"]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (gzip.compress(TRAIN_IMAGES, mtime=0)[:-400], "cannot be read"),
        (b"\x1f\x8b" + b"damaged" * 20, "cannot be read"),
        (gzip.compress(TRAIN_IMAGES[:-1], mtime=0), "is damaged"),
        (gzip.compress(TRAIN_IMAGES + b"0", mtime=0), "is damaged"),
        (gzip.compress(IDX["train-labels-idx1-ubyte"], mtime=0), "is not an IDX file"),
        (gzip.compress(IDX["t10k-images-idx3-ubyte"], mtime=0), "is not an IDX file of bytes (20, 28, 28)"),
        (b"\0\0", "is not an IDX file"),
        (b"", "is not an IDX file"),
    ],
)
def test_mnist_damaged(home, content, word):
    write_idx(home / "mnist")
    (home / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(content)
    refused("train-images-idx3-ubyte.gz", word, args=("mnist",))


PICTURES = RNG.integers(0, 256, (33, 3, 32, 32), dtype=np.uint8)
KINDS = np.arange(33) % 10


def binary(part):
    return np.hstack([KINDS[part, None].astype(np.uint8), PICTURES[part].reshape(-1, 3072)]).tobytes()


def write_cifar(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(5):
        (folder / f"data_batch_{k + 1}.bin").write_bytes(binary(slice(6 * k, 6 * k + 6)))
    (folder / "test_batch.bin").write_bytes(binary(slice(30, 33)))


def check_cifar(data):
    assert (data.name, data.shape, data.levels) == ("cifar10", (3, 32, 32), 256)
    assert data.sizes == {"train": 26, "validation": 4, "test": 3}
    np.testing.assert_array_equal(np.concatenate([data.splits[s] for s in SPLITS]), PICTURES)
    np.testing.assert_array_equal(np.concatenate([data.labels[s] for s in SPLITS]), KINDS)


def test_cifar(home):
    write_cifar(home / cifar.FOLDER)
    check_cifar(load("cifar10"))


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("data_batch_2.bin", binary(slice(0, 6))[:-1], "damaged"),
        ("data_batch_2.bin", binary(slice(0, 5)), "damaged"),
        ("test_batch.bin", b"", "damaged"),
        ("test_batch.bin", binary(slice(0, 7)), "damaged"),
        ("test_batch.bin", b"\x0a" + binary(slice(0, 1))[1:], "label 10"),
    ],
)
def test_cifar_damaged(home, name, content, word):
    write_cifar(home / cifar.FOLDER)
    (home / cifar.FOLDER / name).write_bytes(content)
    refused(name, word, args=("cifar10",))


# Downloads, from a server of our own


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path):
    """A folder, and the URL where a local server offers it."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_mnist_downloads_once(home, served, monkeypatch, capfd):
    folder, url = served
    logger, said = pooch.get_logger(), io.StringIO()
    logger.setLevel("INFO")
    monkeypatch.setattr(logger.handlers[0], "stream", said)
    write_idx(folder)
    monkeypatch.setattr(mnist, "MNIST_URL", url)
    monkeypatch.setattr(mnist, "MNIST_MD5", {stem: md5(folder / f"{stem}.gz") for stem in IDX})
    data = load("mnist")
    out, err = capfd.readouterr()
    assert out == ""
    assert said.getvalue() == ""
    assert "100%" in err
    assert sorted(file.name for file in (home / "mnist").iterdir()) == sorted(f"{stem}.gz" for stem in IDX)
    for file in folder.iterdir():
        file.unlink()
    assert load("mnist").sha256 == data.sha256


def test_wrong_hash_leaves_nothing(home, served, monkeypatch):
    folder, url = served
    write_idx(folder)
    monkeypatch.setattr(mnist, "FASHION_URL", url)
    refused("fashion-mnist: ", f"{url}train-images-idx3-ubyte.gz", "md5 is wrong", args=("fashion-mnist",))
    assert not list((home / "fashion-mnist").iterdir())


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("mnist", "mnist/train-images-idx3-ubyte.gz"),
        ("fashion-mnist", "fashion-mnist/train-images-idx3-ubyte.gz"),
        ("cifar10", "cifar-10-batches-bin/data_batch_1.bin"),
    ],
)
def test_no_network(home, name, wanted):
    line = refused(f"{name}: ", "http://127.0.0.1:9/", "ConnectionError", args=(name,))
    folder, file = wanted.split("/")
    assert f"{file} is not in {home / folder}, " in line
    assert line.endswith(f"; set LONGFLOW_DATA to a folder that has {wanted}")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_not_found(home, served, monkeypatch):
    monkeypatch.setattr(mnist, "MNIST_URL", served[1])
    refused("HTTPError", "LONGFLOW_DATA", args=("mnist",))
    gc.collect()  # pooch does not close the answer, whose socket would warn in a later test


def test_without_longflow_data_the_cache_is_used(home, tmp_path, monkeypatch):
    monkeypatch.delenv("LONGFLOW_DATA")
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache" / name)
    write_idx(tmp_path / "cache" / "longflow" / "mnist")
    assert load("mnist").sizes["train"] == 16


def archive(folder, members):
    with tarfile.open(folder / "cifar.tar.gz", "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def cifar_members(folder):
    write_cifar(folder)
    return {f"{cifar.FOLDER}/{file.name}": file.read_bytes() for file in folder.iterdir()}


def test_cifar_downloads_and_unpacks_nothing_else(home, served, monkeypatch, tmp_path):
    folder, url = served
    archive(folder, {"../evil": b"out", **cifar_members(tmp_path / "source")})
    monkeypatch.setattr(cifar, "URL", f"{url}cifar.tar.gz")
    monkeypatch.setattr(cifar, "MD5", md5(folder / "cifar.tar.gz"))
    check_cifar(load("cifar10"))
    assert not (tmp_path / "evil").exists()
    assert [path.name for path in home.iterdir()] == [cifar.FOLDER]
    assert sorted(f.name for f in (home / cifar.FOLDER).iterdir()) == sorted([*cifar.BATCHES, cifar.TEST])


def test_cifar_archive_without_the_files(home, served, monkeypatch):
    folder, url = served
    archive(folder, {"other": b""})
    monkeypatch.setattr(cifar, "URL", f"{url}cifar.tar.gz")
    monkeypatch.setattr(cifar, "MD5", md5(folder / "cifar.tar.gz"))
    refused("cifar.tar.gz cannot be read", "data_batch_1.bin", args=("cifar10",))


# Folders of pictures


def picture(path, value=0, size=(6, 4), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode in ("L", "I;16") else (value,) * len(mode)).save(path)


def pictures(folder, n=10, suffix=".png", mode="RGB"):
    for k in range(n):
        picture(folder / f"{k:02}{suffix}", k, mode=mode)
    return folder


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".bmp", ".webp"])
def test_folder(tmp_path, suffix):
    data = load(pictures(tmp_path / "pics", 20, suffix))
    assert (data.name, data.shape, data.levels, data.labels) == ("pics", (3, 4, 6), 256, None)
    assert data.sizes == {"train": 16, "validation": 2, "test": 2}


def test_folder_is_read_in_the_order_of_names(tmp_path):
    pictures(tmp_path, 12, mode="L")
    picture(tmp_path / ".hidden.png", 99, (1, 1))
    (tmp_path / "notes.txt").write_text("no picture")
    content = read(tmp_path)
    assert content.rows.shape == (12, 1, 4, 6)
    assert content.rows[:, 0, 0, 0].tolist() == list(range(12))


def test_folder_with_splits_and_classes(tmp_path):
    for split, n in (("train", 10), ("val", 2), ("test", 3)):
        for kind in ("cat", "dog"):
            pictures(tmp_path / split / kind, n)
    data = load(tmp_path)
    assert data.sizes == {"train": 20, "validation": 4, "test": 6}
    assert data.labels["test"].tolist() == [0, 0, 0, 1, 1, 1]
    assert data.splits["test"][:, 0, 0, 0].tolist() == [0, 1, 2, 0, 1, 2]


def test_folder_with_classes_keeps_pictures_and_labels_together(tmp_path):
    pictures(tmp_path / "low", 20)
    for k in range(20):
        picture(tmp_path / "high" / f"{k}.png", 200 + k)
    data = load(tmp_path)
    for split in SPLITS:
        np.testing.assert_array_equal(data.labels[split], data.splits[split][:, 0, 0, 0] < 100)


@pytest.mark.parametrize("stray", ["loose.png", None])
def test_folder_without_classes(tmp_path, stray):
    pictures(tmp_path / "only")
    if stray:
        picture(tmp_path / stray)
        pictures(tmp_path / "more")
    assert load(tmp_path).labels is None


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("1", 1), ("P", 3)])
def test_picture_modes(tmp_path, mode, channels):
    for k in range(10):
        image = Image.fromarray(BYTES[0, 0] + np.uint8(k)).convert("RGB" if mode == "P" else "L")
        image = image.quantize(8) if mode == "P" else image.convert(mode)
        image.save(tmp_path / f"{k}.png", **({"transparency": b"\1\2"} if mode == "P" else {}))
    assert load(tmp_path).shape == (channels, 4, 5)


def odd_size(folder):
    picture(folder / "odd.png", size=(7, 4))


def odd_mode(folder):
    picture(folder / "odd.png", mode="L")


def deep(folder):
    picture(folder / "odd.png", mode="I;16")


def damaged(folder):
    (folder / "odd.png").write_bytes((folder / "00.png").read_bytes()[:45])


def text(folder):
    (folder / "odd.png").write_text("no picture")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (odd_size, ["00.png is 6x4 RGB", "7x4 RGB"]),
        (odd_mode, ["00.png is 6x4 RGB", "6x4 grey"]),
        (deep, ["8 bits"]),
        (damaged, ["cannot be read"]),
        (text, ["cannot be read"]),
    ],
)
def test_folder_refuses(tmp_path, spoil, words):
    pictures(tmp_path)
    spoil(tmp_path)
    refused("odd.png", *words, args=(tmp_path,))


def test_folder_refuses_what_is_missing(tmp_path):
    refused("no pictures", ".png", args=(tmp_path,))
    pictures(tmp_path / "train", 10)
    (tmp_path / "test").mkdir()
    refused("no pictures", "test", args=(tmp_path,))
    pictures(tmp_path / "val", 1)
    pictures(tmp_path / "valid", 1)
    refused("both", "'val'", "'valid'", args=(tmp_path,))


def test_folder_of_few(tmp_path):
    refused("9 rows", "at least 10", args=(pictures(tmp_path, 9),))


# Arrays


def saved(tmp_path, arrays):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    return path


def test_npz_with_all_splits(tmp_path):
    y = np.arange(20)
    parts = {"train": BYTES[:9], "valid": BYTES[9:15], "test": BYTES[15:]}
    labels = {"train_labels": y[:9], "valid_labels": y[9:15], "test_labels": y[15:]}
    data = load(saved(tmp_path, {**parts, **labels, "notes": np.array("left alone")}))
    np.testing.assert_array_equal(np.concatenate(list(data.splits.values())), BYTES)
    np.testing.assert_array_equal(np.concatenate(list(data.labels.values())), y)


@pytest.mark.parametrize("key", ["x", "X", "anything"])
def test_npz_of_one_array(tmp_path, key):
    data = load(saved(tmp_path, {key: POINTS}))
    assert (data.name, data.levels, data.sizes["train"]) == ("a.npz", None, 40)
    everything = np.concatenate(list(data.splits.values()))
    np.testing.assert_array_equal(np.sort(everything, axis=0), np.sort(POINTS.astype(np.float32), axis=0))


def test_npz_x_and_y_stay_together(tmp_path):
    data = load(saved(tmp_path, {"X": POINTS, "y": POINTS[:, 0] > 0}))
    for split in SPLITS:
        np.testing.assert_array_equal(data.labels[split], data.splits[split][:, 0] > 0)


def test_npz_train_and_test(tmp_path):
    assert load(saved(tmp_path, {"train": BYTES, "test": BYTES})).sizes == {"train": 18, "validation": 2, "test": 20}


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64, np.uint16, ">f4"])
def test_types_of_continuous_data(tmp_path, dtype):
    x = (100 + 10 * POINTS).astype(dtype)
    np.save(tmp_path / "a.npy", x)
    content = read(tmp_path / "a.npy")
    assert (content.levels, content.rows.dtype) == (None, np.float32)
    np.testing.assert_array_equal(content.rows, x.astype(np.float32))


@pytest.mark.parametrize(
    ("x", "levels", "expected"),
    [
        (BYTES[:, 0], 256, BYTES[:, :1]),
        (BYTES, 256, BYTES),
        (np.moveaxis(BYTES, 1, -1), 256, BYTES),
        (np.moveaxis(BYTES[:, :1], 1, -1), 256, BYTES[:, :1]),
        (BYTES.reshape(20, -1), 256, BYTES.reshape(20, -1)),
        (BYTES[..., :3], 256, BYTES[..., :3]),
        (BYTES[:, 0] > 99, 2, BYTES[:, :1] > 99),
        (BYTES / 7, None, (BYTES / 7).astype(np.float32)),
        (BYTES[:, 0] / 7, None, (BYTES[:, :1] / 7).astype(np.float32)),
    ],
)
def test_layouts(tmp_path, x, levels, expected):
    np.save(tmp_path / "a.npy", x)
    data = load(tmp_path / "a.npy")
    assert (data.levels, data.shape) == (levels, expected.shape[1:])
    np.testing.assert_array_equal(read(tmp_path / "a.npy").rows, expected)
    assert all(rows.flags.c_contiguous for rows in data.splits.values())


BAD_ARRAYS = {
    "vector": ({"x": np.arange(20.0)}, ["(20,)", "expected (N, D)"]),
    "scalar": ({"x": np.float64(1)}, ["()"]),
    "no column": ({"x": POINTS[:, :0]}, ["needs a value"]),
    "five axes": ({"x": np.ones((20, 1, 1, 2, 2))}, ["(20, 1, 1, 2, 2)"]),
    "objects": ({"x": np.array([["a", None]] * 20, object)}, ["cannot be read", "allow_pickle"]),
    "text": ({"x": np.array([["a", "b"]] * 20)}, ["<U1"]),
    "complex": ({"x": POINTS + 1j}, ["complex128"]),
    "integer images": ({"x": BYTES.astype(int)}, ["int64", "uint8"]),
    "nan": ({"x": with_value(POINTS, 4, 2, np.nan)}, ["1 value missing", "row 4, feature 2"]),
    "nans": ({"train": POINTS, "test": with_value(POINTS, slice(5, 7), 1, np.inf)}, ["test", "2 values", "row 5"]),
    "beyond float32": ({"x": with_value(POINTS, 3, 0, 1e39)}, ["row 3, feature 0", "float32"]),
    "constant": ({"x": with_value(POINTS, slice(None), 1, 5)}, ["feature 1 has the same value in every row", "drop"]),
    "constant in float32": ({"x": POINTS * 1e-6 + 1e6}, ["column 'x1' varies by", "about 1000000", "subtract"]),
    "few": ({"x": POINTS[:9]}, ["9 rows"]),
    "empty": ({"train": POINTS[:0], "validation": POINTS, "test": POINTS}, ["train split is empty"]),
    "two arrays": ({"a": POINTS, "b": POINTS}, ["a, b", "'train'"]),
    "x twice": ({"x": POINTS, "X": POINTS}, ["x, X"]),
    "no array": ({}, ["no array"]),
    "two names": ({"train": POINTS, "val": POINTS, "valid": POINTS}, ["both", "validation"]),
    "mixed": ({"train": BYTES, "test": BYTES / 2}, ["train uint8, test float64"]),
    "shapes": ({"train": POINTS, "test": POINTS[:, :2]}, ["differ in shape"]),
    "labels of one split": ({"train": BYTES, "test": BYTES, "train_labels": np.arange(20)}, ["labels of test"]),
    "labels too few": ({"x": POINTS, "y": np.arange(49)}, ["50 whole numbers", "(49,)"]),
    "labels of fractions": ({"x": POINTS, "y": POINTS[:, 0]}, ["float64"]),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_npz_refuses(tmp_path, case):
    arrays, words = BAD_ARRAYS[case]
    refused("a.npz", *words, args=(saved(tmp_path, arrays),))


def test_npz_names_are_forgiven_but_damage_is_not(tmp_path):
    np.save(tmp_path / "a.npy", POINTS)
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npy").read_bytes())
    assert load(tmp_path / "b.npz").sha256 == load(tmp_path / "a.npy").sha256


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
@pytest.mark.parametrize("spoil", [lambda c: c[: len(c) // 2], lambda c: c[:9], lambda c: b"", lambda c: b"text" * 9])
def test_damaged_arrays(tmp_path, suffix, spoil):
    path = tmp_path / f"a{suffix}"
    np.savez(path, x=POINTS) if suffix == ".npz" else np.save(path, POINTS)
    path.write_bytes(spoil(path.read_bytes()))
    refused(path.name, "cannot be read", args=(path,))


def test_npz_with_a_wrong_checksum(tmp_path):
    path = saved(tmp_path, {"x": POINTS})
    path.write_bytes(flipped(path.read_bytes()))
    refused("a.npz cannot be read", "CRC", args=(path,))


def test_zip_of_other_things(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("readme.txt", "hello")
    refused("a.npz", args=(tmp_path / "a.npz",))


# Tables


def csv_file(tmp_path, content):
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


ROWS = "".join(f"{a!r},{b!r},{c!r}\n" for a, b, c in POINTS.tolist())


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("a,b,c\n" + ROWS, ("a", "b", "c")),
        (ROWS, ("x1", "x2", "x3")),
        ('\ufeff"a", b ,\n' + ROWS, ("a", "b", "x3")),
        (("a,b,c\n" + ROWS).replace(",", ";"), ("a", "b", "c")),
        (("a,b,c\n" + ROWS).replace(",", "\t"), ("a", "b", "c")),
        (("a,b,c\n\n" + ROWS + "\n\n").replace("\n", "\r\n"), ("a", "b", "c")),
        ('"a\nb",b,c\n' + ROWS, ("a\nb", "b", "c")),
    ],
)
def test_csv(tmp_path, content, columns):
    path = csv_file(tmp_path, content)
    np.testing.assert_array_equal(read(path).rows, POINTS.astype(np.float32))
    data = load(path)
    assert (data.name, data.columns, data.levels) == ("t.csv", columns, None)
    assert data.sizes == {"train": 40, "validation": 5, "test": 5}


def test_csv_booleans(tmp_path):
    path = csv_file(tmp_path, "a,b\n" + "True,1\nfalse,2\n" * 8)
    assert read(path).rows[:2].tolist() == [[1, 1], [0, 2]]


def rows(*lines):
    return "a,b\n" + "".join(f"{k},{k * k}\n" for k in range(20)) + "".join(f"{line}\n" for line in lines)


BAD_CSV = {
    "text": (rows("1,cat"), ["line 22", "column 'b'", "'cat' is not a number"]),
    "long text": (rows("1," + "long " * 50), ["line 22", "'long long"]),
    "text of two lines": (rows('1,"two\nlines"'), ["'two\\nlines'"]),
    "missing": (rows("1,"), ["line 22", "column 'b'", "drop or fill"]),
    "NA": (rows("NA,1", "1,?"), ["2 values", "line 22", "column 'a'"]),
    "nan": (rows("", "nan,1"), ["line 23", "column 'a'"]),
    "inf": (rows("1,-inf"), ["line 22", "column 'b'"]),
    "beyond float32": (rows("1,1e40"), ["line 22", "float32"]),
    "ragged": (rows("1,2,3"), ["line 22", "3 cells", "2 columns"]),
    "short": (rows("1"), ["line 22", "1 cell,"]),
    "constant": (
        "a,b\n" + "".join(f"{k},7\n" for k in range(20)),
        ["column 'b' has the same value in every row", "drop"],
    ),
    "constant in float32": (
        "a,b\n" + "".join(f"{k},{1700000000 + k % 3}\n" for k in range(20)),
        ["column 'b' varies by 2 about 1.7e+09", "subtract"],
    ),
    "few": ("a,b\n1,2\n", ["1 row;", "at least 10"]),
    "no rows": ("a,b\n", ["0 rows", "at least 10"]),
    "empty": ("", ["is empty"]),
    "names": ("a,a\n1,2\n", ["two columns named 'a'"]),
    "binary": (b"\xff\xfe\x00\x81", ["cannot be read", "utf-8"]),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_csv_refuses(tmp_path, case):
    content, words = BAD_CSV[case]
    line = refused("t.csv", *words, args=(csv_file(tmp_path, content),))
    assert len(line) < 250 + len(str(tmp_path))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_csv_without_permission(tmp_path):
    path = csv_file(tmp_path, rows())
    path.chmod(0)
    refused("t.csv cannot be read: Permission denied", args=(path,))


def parquet(tmp_path, frame):
    frame.to_parquet(tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def frame(**columns):
    k = np.arange(20)
    return pd.DataFrame({"a": k / 3, "b": k * k} | columns, index=k + 100)


def test_parquet(tmp_path):
    nullable = pd.array([1, 2] * 10, dtype="Int64")
    data = load(parquet(tmp_path, frame(c=np.arange(20) % 2 == 0, d=nullable)))
    assert (data.name, data.columns, data.levels) == ("t.parquet", ("a", "b", "c", "d"), None)
    expected = [[k / 3, k * k, k % 2 == 0, 1 + k % 2] for k in range(20)]
    np.testing.assert_array_equal(read(tmp_path / "t.parquet").rows, np.float32(expected))


BAD_PARQUET = {
    "text": ({"c": ["1"] * 3 + ["x"] * 17}, ["row 0", "column 'c'", "'1' is not a number"]),
    "text after missing": ({"c": [None] * 3 + ["x"] * 17}, ["row 3", "column 'c'", "'x'"]),
    "dates": ({"c": pd.date_range("2020-01-01", periods=20)}, ["column 'c'", "2020-01-01"]),
    "missing": ({"c": [*range(19), None]}, ["row 19", "column 'c'", "drop or fill"]),
    "missing integer": ({"c": pd.array([*range(19), None], dtype="Int64")}, ["row 19", "column 'c'"]),
    "nothing": ({"c": [None] * 20}, ["20 values", "row 0", "column 'c'"]),
    "constant": ({"c": 1}, ["column 'c' has the same value"]),
}


@pytest.mark.parametrize("case", BAD_PARQUET)
def test_parquet_refuses(tmp_path, case):
    columns, words = BAD_PARQUET[case]
    refused("t.parquet", *words, args=(parquet(tmp_path, frame(**columns)),))


def test_parquet_of_one_column_or_none(tmp_path):
    assert load(parquet(tmp_path, frame()[["a"]])).shape == (1,)
    refused("no columns", args=(parquet(tmp_path, frame()[[]]),))


def test_parquet_damaged(tmp_path):
    path = parquet(tmp_path, frame())
    path.write_bytes(path.read_bytes()[:-100])
    refused("t.parquet cannot be read", args=(path,))


@pytest.mark.parametrize("module", ["pandas", "pyarrow"])
def test_parquet_without_its_packages(tmp_path, monkeypatch, module):
    path = parquet(tmp_path, frame())
    monkeypatch.setitem(sys.modules, module, None)
    refused("pip install longflow[tables]", args=(path,))


# The genuine data, where they are at hand

REAL = {"mnist": 33.3184, "fashion-mnist": 72.9404, "cifar10": 120.7075}


@pytest.mark.parametrize("name", REAL)
def test_genuine_data(name):
    folder = Path(os.environ.get("LONGFLOW_DATA", "")) / {"cifar10": cifar.FOLDER}.get(name, name)
    if not (os.environ.get("LONGFLOW_DATA") and folder.is_dir()):
        pytest.skip(f"LONGFLOW_DATA has no {folder.name}")
    data = load(name)
    parts = [data.splits["train"], data.splits["validation"]]
    mean = sum(float(x.sum(dtype=np.float64)) for x in parts) / sum(x.size for x in parts)
    assert mean == pytest.approx(REAL[name], abs=1e-3)
    assert re.search(r"sha256 [0-9a-f]{12}$", data.describe())

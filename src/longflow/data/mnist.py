"""MNIST (LeCun, Cortes and Burges, 1998) and Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017)."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from longflow.data.dataset import Dataset
from longflow.data.download import fetch, home
from longflow.data.idx import read_idx

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_MD5 = {
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}
FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FASHION_MD5 = {
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}
TRAIN, VALIDATION, TEST = 55_000, 5_000, 10_000


def mnist() -> Dataset:
    """Load 70,000 handwritten digits, 1x28x28, 256 levels."""
    return _load("mnist", MNIST_URL, MNIST_MD5)


def fashion_mnist() -> Dataset:
    """Load 70,000 pictures of clothes, 1x28x28, 256 levels."""
    return _load("fashion-mnist", FASHION_URL, FASHION_MD5)


def _load(name: str, url: str, md5: Mapping[str, str]) -> Dataset:
    """Read the four files; `validation` is the last 5,000 of the training images.

    Raises:
        UsageError: a file is neither there nor to be had, or is damaged.
    """
    files = {stem: _find(name, url, stem, known) for stem, known in md5.items()}
    pictures = _both(files, "images-idx3-ubyte", (28, 28))
    labels = _both(files, "labels-idx1-ubyte", ())
    splits = {split: x[:, None] for split, x in pictures.items()}
    return Dataset(name, splits, 256, {split: y.astype(np.int64) for split, y in labels.items()})


def _find(name: str, url: str, stem: str, md5: str) -> Path:
    folder = home(name)
    for file in (folder / f"{stem}.gz", folder / stem):
        if file.is_file():
            return file
    return fetch(name, f"{stem}.gz", f"{url}{stem}.gz", md5, folder)


def _both(files: Mapping[str, Path], kind: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Read the training and the test file of one kind, and return the three splits."""
    train = read_idx(files[f"train-{kind}"], (TRAIN + VALIDATION, *shape))
    test = read_idx(files[f"t10k-{kind}"], (TEST, *shape))
    return {"train": train[:TRAIN], "validation": train[TRAIN:], "test": test}

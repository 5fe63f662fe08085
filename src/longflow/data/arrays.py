"""NumPy's own files: `.npz` with an array for each split, `.npy` with one array."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from longflow.data.checks import as_float32, names_of, reading, require_finite, require_resolved
from longflow.data.content import Content
from longflow.data.contexts import Contexts
from longflow.data.splitting import named
from longflow.errors import UsageError, choose

WHOLE = ("x", "X")


def read_arrays(path: Path) -> Content:
    """Read the arrays `train`, `validation` (or `valid`, `val`) and `test`; or `x`; or the only array there is.

    Labels are `train_labels`, `validation_labels` and `test_labels`, for all of the splits there are or for none, and
    `y` beside `x`. Further arrays are left alone. Nothing is ever unpickled.

    =====================  =========================================================
    type                   becomes
    =====================  =========================================================
    uint8                  256 levels
    bool                   2 levels
    float                  continuous float32
    other integers (N, D)  continuous float32, exact up to 2^24
    other integers         refused: whole images are to be saved as uint8
    =====================  =========================================================

    =====================  =========================================================
    shape                  becomes
    =====================  =========================================================
    (N, D)                 vectors
    (N, H, W)              (N, 1, H, W)
    (N, H, W, C)           (N, C, H, W), where C is 1 or 3 and H is neither
    (N, C, H, W)           the same
    =====================  =========================================================

    Raises:
        UsageError: the file cannot be read, no array is named as above, or an array is not rows of finite numbers.
    """
    splits, labels = _load(path)
    kinds = {split: _levels(f"{path}, {split}", x) for split, x in splits.items()}
    if len(set(kinds.values())) > 1:
        types = ", ".join(f"{split} {x.dtype}" for split, x in splits.items())
        raise UsageError(f"{path}: the splits differ in type: {types}")
    rows = {split: _rows(f"{path}, {split}", x) for split, x in splits.items()}
    return Content(path.name, rows, kinds["train"], _labels(path, rows, labels), dtypes=_dtypes(splits["train"]))


def _load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the rows and the labels that there are, by split."""
    with reading(path), path.open("rb") as stream:
        file = np.load(stream, allow_pickle=False)
        if isinstance(file, np.ndarray):
            return {"train": file}, {}
        keys = _keys(path, file.files)
        labels = _label_keys(path, file.files, keys["train"])
        return {s: np.asarray(file[k]) for s, k in keys.items()}, {s: file[k] for s, k in labels.items()}


def _keys(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Map each split that there is to the name of its array."""
    splits = named(str(path), names)
    if "train" in splits:
        return splits
    whole = [name for name in names if name in WHOLE or len(names) == 1]
    if len(whole) == 1:
        return {"train": whole[0]}
    held = ", ".join(names) or "no array"
    raise UsageError(f"{path} holds {held}; expected 'train' ('validation', 'test'), or 'x', or one array")


def _label_keys(path: Path, names: Sequence[str], train: str) -> dict[str, str]:
    """Map each split that has labels to the name of their array."""
    return _beside(path, names, train, alone="y", suffix="_labels")


def _beside(path: Path, names: Sequence[str], train: str, *, alone: str, suffix: str) -> dict[str, str]:
    """Map each split to the array that goes with it: named `alone` beside `x`, else as the split with a suffix."""
    if train in WHOLE:
        return {"train": alone} if alone in names else {}
    stems = [name.removesuffix(suffix) for name in names if name.endswith(suffix)]
    return {split: f"{stem}{suffix}" for split, stem in named(str(path), stems).items()}


def with_contexts(path: Path, content: Content, asked: Sequence[str]) -> Content:
    """Return the content of an `.npz` conditioned on the array of that name beside `x`, or train_NAME, test_NAME, ...

    Of any type of numbers and any shape (N, ...), (N,) being (N, 1).

    Raises:
        UsageError: there is no such array, or not a finite context for each row.
    """
    if len(asked) != 1:
        raise UsageError(f"{path}: expected the name of one array as the context; {', '.join(asked)} came")
    with reading(path), path.open("rb") as stream:
        file = np.load(stream, allow_pickle=False)
        keys = _beside(path, file.files, _keys(path, file.files)["train"], alone=asked[0], suffix=f"_{asked[0]}")
        if not keys:
            choose(f"array of contexts in {path}:", asked[0], file.files)
        found = {split: np.asarray(file[key]) for split, key in keys.items()}
    for split, x in content.splits.items():
        c = found.get(split)
        if c is None or c.dtype.kind not in "iufb" or c.ndim < 1 or len(c) != len(x):
            got = "nothing" if c is None else f"{c.dtype} {c.shape}"
            raise UsageError(f"{path}: expected numbers for {len(x)} rows as '{asked[0]}' of {split}, got {got}")
    contexts = {split: as_float32(c.reshape(len(c), -1) if c.ndim == 1 else c) for split, c in found.items()}
    for split, c in contexts.items():
        require_finite(f"{path}, contexts of {split}", c)
    return replace(content, contexts=Contexts((asked[0],), contexts))


def _levels(source: str, x: np.ndarray) -> int | None:
    """Return the number of levels that the type stands for, None for continuous values."""
    if x.dtype in (np.uint8, np.bool_):
        return 256 if x.dtype == np.uint8 else 2
    if x.dtype.kind not in "iuf":
        raise UsageError(f"{source} is of type {x.dtype}; expected numbers")
    if x.dtype.kind in "iu" and x.ndim > 2:
        raise UsageError(f"{source} has shape {x.shape} and type {x.dtype}; save images as uint8, or else as float")
    return None


def _rows(source: str, x: np.ndarray) -> np.ndarray:
    """Bring rows to their layout, and to uint8 or float32."""
    if x.ndim not in (2, 3, 4):
        raise UsageError(f"{source} has shape {x.shape}; expected (N, D) or (N, C, H, W)")
    rows = _channels_first(x)
    if x.dtype in (np.uint8, np.bool_):
        return rows.astype(np.uint8, copy=False)
    single = as_float32(rows)
    require_finite(source, single)
    if x.ndim == 2:
        require_resolved(source, rows, single)
    return single


def _dtypes(x: np.ndarray) -> dict[str, str] | None:
    """Return the type of each column of a table, by the names that columns without names have."""
    return dict.fromkeys(names_of(None, x.shape[1]), x.dtype.name) if x.ndim == 2 else None


def _channels_first(x: np.ndarray) -> np.ndarray:
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[3] in (1, 3) and x.shape[1] not in (1, 3):
        return x.transpose(0, 3, 1, 2)
    return x


def _labels(
    path: Path, rows: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray] | None:
    """Return int64 labels for every split, or None where there are none."""
    for split, x in rows.items() if labels else ():
        y = labels.get(split)
        if y is None or y.dtype.kind not in "iub" or y.shape != (len(x),):
            got = "nothing" if y is None else f"{y.dtype} {y.shape}"
            raise UsageError(f"{path}: expected {len(x)} whole numbers as the labels of {split}, got {got}")
    return {split: y.astype(np.int64) for split, y in labels.items()} or None

"""A folder of pictures of one size."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from longflow.data.checks import reading
from longflow.data.content import Content
from longflow.data.splitting import named
from longflow.errors import UsageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
GREY = ("1", "L", "LA")


def read_folder(path: Path) -> Content:
    """Read every picture below a folder, in the order of their names: (N, 1, H, W) if grey, else RGB (N, 3, H, W).

    Sub-folders `train`, `validation` (or `valid`, `val`) and `test` are the splits, if there is a `train`. Labels are
    the indices of the class folders, sorted by name, if every picture lies in one and there are at least two.
    Transparency is dropped; hidden files are left alone.

    Raises:
        UsageError: there are no pictures, one cannot be read, or two differ in size or in being grey.
    """
    files = {split: _pictures(folder) for split, folder in _split_folders(path).items()}
    pictures = _read([file for some in files.values() for file in some])
    ends = np.cumsum([len(some) for some in files.values()])[:-1]
    splits = dict(zip(files, np.split(pictures, ends), strict=True))
    return Content(path.resolve().name, splits, 256, _labels(path, files))


def _split_folders(path: Path) -> dict[str, Path]:
    names = named(str(path), sorted(child.name for child in path.iterdir() if child.is_dir()))
    return {split: path / name for split, name in names.items()} if "train" in names else {"train": path}


def _pictures(folder: Path) -> list[Path]:
    files = [file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()]
    visible = [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]
    if not visible:
        raise UsageError(f"there are no pictures ({', '.join(SUFFIXES)}) in {folder}")
    return sorted(visible)


def _read(files: Sequence[Path]) -> np.ndarray:
    """Return uint8 (N, C, H, W)."""
    first = _picture(files[0])
    pictures = np.empty((len(files), *first.shape), np.uint8)
    for k, file in enumerate(files):
        picture = _picture(file)
        if picture.shape != first.shape:
            raise UsageError(
                f"all pictures must be of one size and kind, but {files[0]} is {_kind(first)} and {file} is "
                f"{_kind(picture)}"
            )
        pictures[k] = picture
    return pictures


def _picture(file: Path) -> np.ndarray:
    """Return uint8 (C, H, W)."""
    with reading(file), Image.open(file) as image:
        if image.mode.startswith(("I", "F")):
            raise UsageError(f"{file} has more than 8 bits per value; save it with 8")
        if image.mode in GREY:
            return np.asarray(image.convert("L"))[None]
        # A palette with transparency may only be looked up by way of RGBA.
        whole = image.convert("RGBA") if image.mode == "P" else image
        return np.asarray(whole.convert("RGB")).transpose(2, 0, 1)


def _kind(picture: np.ndarray) -> str:
    channels, height, width = picture.shape
    return f"{width}x{height} {'grey' if channels == 1 else 'RGB'}"


def _labels(path: Path, files: Mapping[str, Sequence[Path]]) -> dict[str, np.ndarray] | None:
    """Return int64 labels for each split, or None where the pictures are not in class folders."""
    folders = {file.parent for some in files.values() for file in some}
    classes = sorted({folder.name for folder in folders})
    if len(classes) < 2 or folders & {path, *_split_folders(path).values()}:
        return None
    index = {name: k for k, name in enumerate(classes)}
    return {split: np.array([index[file.parent.name] for file in some], np.int64) for split, some in files.items()}

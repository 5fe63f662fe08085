"""Pictures made of pictures: grids, labelled blocks and strips. Pixels stay pixels (whole-number scaling only).

These PNGs carry no resolution, unlike plots: their pixels are the data.
"""

import io
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from longflow.errors import UsageError
from longflow.figures.style import Array
from longflow.figures.tiles import GUTTER, default_scale, enlarge, grid, tile, to_bytes

CLEAR = (255, 255, 255, 0)  # titles stand on the page itself, in a grey that reads on light and on dark
PEN = "#747d8a"
BAND, GAP, MARGIN = 24, 20, 10  # height of a title, distance between blocks, distance of a row title


def image_grid(images: Array, *, levels: int, columns: int | None = None, scale: int | None = None) -> bytes:
    """Draw images (N, C, H, W), row by row, as one grid.

    Args:
        images: values 0..levels-1, with C = 1 (grey) or 3 (red, green, blue).
        levels: number of values of a pixel; 0 is black and levels-1 is 255.
        columns: images in a row; by default the grid is about square.
        scale: whole-number enlargement; by default the longer side becomes about 64 pixels.

    Returns:
        A PNG.

    Raises:
        UsageError: if the shape is not (N, 1 or 3, H, W) or a value is outside 0..levels-1.
    """
    return _to_png(Image.fromarray(grid(images, levels, columns, scale)))


def blocks(groups: Mapping[str, Array], *, levels: int, columns: int | None = None, scale: int | None = None) -> bytes:
    """Draw one titled grid per group side by side; each group is as in `image_grid`, which see."""
    if not groups:
        raise UsageError("expected at least one group of images, got none")
    parts = [_titled(grid(images, levels, columns, scale), title) for title, images in groups.items()]
    lefts = np.cumsum([0] + [part.width + GAP for part in parts]).tolist()
    picture = Image.new("RGBA", (lefts[-1] - GAP, max(part.height for part in parts)), CLEAR)
    for part, left in zip(parts, lefts, strict=False):
        picture.paste(part, (left, 0))
    return _to_png(picture)


def temperatures(
    samples: Mapping[float, Array], *, levels: int, columns: int | None = None, scale: int | None = None
) -> bytes:
    """Draw samples at several temperatures side by side, titled "T = 0.7"; arrays as in `image_grid`."""
    groups = {f"T = {temperature:g}": images for temperature, images in samples.items()}
    return blocks(groups, levels=levels, columns=columns, scale=scale)


def strips(
    rows: Array,
    *,
    levels: int,
    column_titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    scale: int | None = None,
) -> bytes:
    """Draw rows of images (R, K, C, H, W): interpolations, originals over reconstructions, steps of inpainting.

    Args:
        rows: values 0..levels-1, with C = 1 or 3.
        levels: number of values of a pixel.
        column_titles: none, or K titles above the columns.
        row_titles: none, or R titles left of the rows.
        scale: whole-number enlargement; by default as in `image_grid`, or larger so that the titles fit.

    Returns:
        A PNG.

    Raises:
        UsageError: if shape or values are wrong, or the number of titles does not match.
    """
    if rows.ndim != 5:
        raise UsageError(f"expected strips of shape (R, K, C, H, W), got {rows.shape}")
    _check_titles("column", column_titles, rows.shape[1])
    _check_titles("row", row_titles, rows.shape[0])
    pixels = to_bytes(rows.reshape(rows.shape[0] * rows.shape[1], *rows.shape[2:]), levels)
    room = math.ceil((_widest(column_titles) + 4) / rows.shape[4]) if column_titles else 1
    cells = enlarge(pixels, max(room, default_scale(pixels)) if scale is None else scale)
    sheet = tile(cells.reshape(*rows.shape[:2], *cells.shape[1:]))
    return _to_png(_framed(sheet, cells.shape[1], cells.shape[2], column_titles, row_titles))


def _titled(sheet: Array, title: str) -> Image.Image:
    """Put a title above a sheet, widening the picture where the title is wider."""
    height, width, _ = sheet.shape
    picture = Image.new("RGBA", (max(width, _widest([title])), height + BAND), CLEAR)
    picture.paste(Image.fromarray(sheet), (0, BAND))
    ImageDraw.Draw(picture).text((0, BAND // 2), title, fill=PEN, font=_font(), anchor="lm")
    return picture


def _framed(
    sheet: Array, height: int, width: int, column_titles: Sequence[str], row_titles: Sequence[str]
) -> Image.Image:
    """Put titles above the columns and left of the rows of a sheet whose cells are `height` × `width`."""
    top = BAND if column_titles else 0
    left = _widest(row_titles) + MARGIN if row_titles else 0
    picture = Image.new("RGBA", (sheet.shape[1] + left, sheet.shape[0] + top), CLEAR)
    picture.paste(Image.fromarray(sheet), (left, top))
    pen = ImageDraw.Draw(picture)
    for column, title in enumerate(column_titles):
        x = left + GUTTER + column * (width + GUTTER) + width / 2
        pen.text((x, top / 2), title, fill=PEN, font=_font(), anchor="mm")
    for row, title in enumerate(row_titles):
        y = top + GUTTER + row * (height + GUTTER) + height / 2
        pen.text((left - MARGIN, y), title, fill=PEN, font=_font(), anchor="rm")
    return picture


def _check_titles(kind: str, titles: Sequence[str], wanted: int) -> None:
    if len(titles) not in (0, wanted):
        raise UsageError(f"expected {wanted} {kind} titles or none, got {len(titles)}")


@cache
def _font() -> ImageFont.FreeTypeFont:
    # The face that plots use, and it comes with matplotlib: pictures look the same on every machine.
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), 13)


def _widest(titles: Sequence[str]) -> int:
    return max(math.ceil(_font().getlength(title)) for title in titles)


def _to_png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()

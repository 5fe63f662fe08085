"""Images as arrays of bytes: levels to grey values, whole-number enlargement, tiling."""

import math

import numpy as np

from longflow.errors import UsageError
from longflow.figures.style import Array

SIDE = 64  # a small image is enlarged to about this many pixels
GUTTER, GREY = 2, 232


def to_bytes(images: Array, levels: int) -> Array:
    """Return images (N, C, H, W) of 0..levels-1 as bytes (N, H, W, 3)."""
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise UsageError(f"expected images of shape (N, 1 or 3, H, W), got {images.shape}")
    if levels < 2:
        raise UsageError(f"expected at least 2 levels, got {levels}")
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= levels - 1):
        raise UsageError(f"expected pixels in 0..{levels - 1}, got values from {low} to {high}")
    grey = np.rint(images.astype(np.float64) * (255 / (levels - 1))).astype(np.uint8)
    return np.broadcast_to(grey, (len(grey), 3, *grey.shape[2:])).transpose(0, 2, 3, 1)


def default_scale(pixels: Array) -> int:
    """Return the enlargement at which images (N, H, W, 3) are at most about 64 pixels long."""
    return max(1, SIDE // max(pixels.shape[1:3]))


def enlarge(pixels: Array, scale: int) -> Array:
    """Repeat every pixel of (N, H, W, 3) `scale` times in both directions."""
    if scale < 1:
        raise UsageError(f"expected a scale of at least 1, got {scale}")
    return pixels.repeat(scale, axis=1).repeat(scale, axis=2)


def grid(images: Array, levels: int, columns: int | None, scale: int | None) -> Array:
    """Lay images (N, C, H, W) out row by row, as bytes (height, width, 3); by default about square."""
    pixels = to_bytes(images, levels)
    cells = enlarge(pixels, default_scale(pixels) if scale is None else scale)
    across = math.ceil(math.sqrt(len(cells))) if columns is None else columns
    if across < 1:
        raise UsageError(f"expected at least 1 column, got {across}")
    down = math.ceil(len(cells) / across)
    missing = down * across - len(cells)
    filled = np.pad(cells, ((0, missing), (0, 0), (0, 0), (0, 0)), constant_values=GREY)
    return tile(filled.reshape(down, across, *cells.shape[1:]))


def tile(cells: Array) -> Array:
    """Lay cells (R, K, H, W, 3) on one sheet (height, width, 3), a gutter around each."""
    rows, columns, height, width, _ = cells.shape
    none = (0, 0)
    framed = np.pad(cells, (none, none, (0, GUTTER), (0, GUTTER), none), constant_values=GREY)
    sheet = framed.transpose(0, 2, 1, 3, 4).reshape(rows * (height + GUTTER), columns * (width + GUTTER), 3)
    return np.pad(sheet, ((GUTTER, 0), (GUTTER, 0), none), constant_values=GREY)

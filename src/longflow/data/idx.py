"""The IDX format of MNIST (LeCun, Cortes and Burges, 1998): a magic number, the sizes, the bytes."""

import gzip
import math
import struct
from pathlib import Path

import numpy as np

from longflow.data.checks import reading
from longflow.errors import UsageError

GZIP = b"\x1f\x8b"


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read unsigned bytes, gzipped or not, whose sizes must be `shape`.

    The header is big-endian: the bytes 0, 0, 8 (unsigned bytes) and the number of sizes; then the sizes, 4 bytes each.

    Raises:
        UsageError: the file is damaged, or holds something else.
    """
    with reading(path):
        return _parsed(path, _content(path), shape)


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if content[:2] == GZIP else content


def _parsed(path: Path, content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    header = struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)
    if content[: len(header)] != header:
        start = content[: len(header)].hex(" ", -4)
        raise UsageError(f"{path} is not an IDX file of bytes {shape}: it starts {start} and not {header.hex(' ', -4)}")
    if len(content) != len(header) + math.prod(shape):
        raise UsageError(f"{path} is damaged: it has {len(content)} bytes; expected {len(header) + math.prod(shape)}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape).copy()

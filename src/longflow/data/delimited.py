"""Tables as text: comma-separated values, or separated by semicolons or tabs."""

import csv
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from longflow.data.checks import reading
from longflow.data.content import Content
from longflow.data.table import not_a_number, table
from longflow.errors import UsageError
from longflow.units import counted

WORDS = {"true": 1.0, "false": 0.0} | dict.fromkeys(("", "na", "n/a", "null", "none", "?"), math.nan)
Line = tuple[int, list[str]]


def read_csv(path: Path) -> Content:
    """Read a table; its first line names the columns, or, if it is all numbers, they are x1 … xD.

    The separator is the one of `,` `;` tab that is most frequent in the first line. True and false count as 1 and 0.

    Raises:
        UsageError: the file cannot be read, a cell is text or missing, or a row has not as many cells as the first.
    """
    lines = _lines(path)
    first = next(lines, None)
    if first is None:
        raise UsageError(f"{path} is empty; expected a line of column names and a line per row")
    columns, body = _header(first, lines)
    numbers, cells, types = array("q"), array("d"), Types(len(columns))
    for number, texts in body:
        cells.extend(_row(path, number, columns, texts))
        numbers.append(number)
        types.meet(texts)
    values = np.array(cells).reshape(-1, len(columns))
    return table(path, columns, values, lambda row: f"line {numbers[row]}", types.names)


class Types:
    """What the cells of each column are written as: true and false, whole numbers, or numbers."""

    def __init__(self, columns: int) -> None:
        self.candidates = {"bool": set(range(columns)), "int64": set(range(columns))}
        self.columns = columns

    def meet(self, texts: Sequence[str]) -> None:
        """Take note of the cells of a row."""
        for name, fits in (("bool", _is_logical), ("int64", _is_whole)):
            self.candidates[name] -= {k for k in self.candidates[name] if not fits(texts[k])}

    @property
    def names(self) -> list[str]:
        """The type of each column."""
        return [next((n for n, left in self.candidates.items() if k in left), "float64") for k in range(self.columns)]


def _is_logical(text: str) -> bool:
    return text.strip().lower() in ("true", "false")


def _is_whole(text: str) -> bool:
    return text.strip().removeprefix("-").removeprefix("+").isdecimal()


def _lines(path: Path) -> Iterator[Line]:
    """Yield (line number from 1, cells) of every line that is not blank."""
    with reading(path), path.open(newline="", encoding="utf-8-sig") as file:
        separator = max(",;\t", key=file.readline().count)
        file.seek(0)
        reader = csv.reader(file, delimiter=separator)
        yield from ((reader.line_num, cells) for cells in reader if cells)


def _header(first: Line, rest: Iterator[Line]) -> tuple[list[str], Iterable[Line]]:
    """Return the names of the columns, and the lines that hold rows."""
    numbered = [f"x{k}" for k, _ in enumerate(first[1], start=1)]
    if all(_number(text) is not None for text in first[1]):
        return numbered, chain([first], rest)
    return [text.strip() or spare for text, spare in zip(first[1], numbered, strict=True)], rest


def _row(path: Path, number: int, columns: Sequence[str], texts: Sequence[str]) -> Iterator[float]:
    if len(texts) != len(columns):
        raise UsageError(f"{path}, line {number}: {counted(len(texts), 'cell')}, but there are {len(columns)} columns")
    for column, text in zip(columns, texts, strict=True):
        value = _number(text)
        if value is None:
            raise not_a_number(path, f"line {number}", column, text)
        yield value


def _number(text: str) -> float | None:
    """Return the value of a cell, NaN if it is missing, or None if it is text."""
    try:
        return float(text)
    except ValueError:
        return WORDS.get(text.strip().lower())

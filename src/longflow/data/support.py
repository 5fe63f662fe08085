"""Where the values of a table's columns may lie: what a user declares, and what is refused for it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from longflow.data.checks import feature, names_of
from longflow.errors import UsageError, choose

LARGEST_WHOLE = 2**20 - 1
"""Whole numbers k up to it in size leave float32 at least sixteen numbers in [k, k + 1), which dequantisation needs."""

FORMS = "real, LOW:, :HIGH, LOW:HIGH, integer, integer LOW:, integer :HIGH or integer LOW:HIGH"


@dataclass(frozen=True)
class Support:
    """The closed interval [low, high] in which the values of a column lie, and whether they are whole numbers.

    Raises:
        UsageError: the interval is empty, or an end of a column of whole numbers is not whole or too large.
    """

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise UsageError(f"a support expects LOW < HIGH; {self.low:g}:{self.high:g} came")
        for end in (self.low, self.high) if self.whole else ():
            if math.isfinite(end) and not (float(end).is_integer() and abs(end) <= LARGEST_WHOLE):
                raise UsageError(
                    f"a support of integers expects whole ends of at most {LARGEST_WHOLE:,} in size; {_told(end)} came"
                )

    @classmethod
    def parse(cls, text: str) -> "Support":
        """Read the notation: `real`, `0:`, `:1`, `0:1`, `integer`, `integer 0:120`, both ends belonging to it.

        Raises:
            UsageError: the text is none of these.
        """
        words = text.split()
        whole = words[:1] == ["integer"]
        rest = words[1:] if whole or words[:1] == ["real"] else words
        if not words or len(rest) > 1 or (rest and rest[0].count(":") != 1):
            raise UsageError(f"expected a support ({FORMS}); {text!r} came")
        low, high = rest[0].split(":") if rest else ("", "")
        return cls(_end(low, -math.inf, text), _end(high, math.inf, text), whole)

    def __str__(self) -> str:
        ends = "" if math.isinf(self.low) and math.isinf(self.high) else f"{_told(self.low)}:{_told(self.high)}"
        return " ".join(filter(None, ("integer" if self.whole else "", ends))) or "real"

    @property
    def bounded(self) -> bool:
        """Whether there is an end."""
        return math.isfinite(self.low) or math.isfinite(self.high)

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of the real numbers that stand for the values: of whole numbers k, all of [k, k + 1)."""
        return self.low, self.high + self.whole

    def outside(self, x: np.ndarray) -> np.ndarray:
        """Return which values do not lie in the support."""
        beyond = (x < np.float32(self.low)) | (x > np.float32(self.high))
        return beyond | ((x != np.rint(x)) | (np.abs(x) > LARGEST_WHOLE)) if self.whole else beyond


def _end(text: str, default: float, whole: str) -> float:
    try:
        value = float(text) if text else default
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise UsageError(f"expected a support ({FORMS}); {whole!r} came")
    return value


def _told(end: float) -> str:
    return "" if math.isinf(end) else repr(int(end) if float(end).is_integer() and abs(end) < 1e15 else end)


def declared(declarations: Sequence[str], columns: Sequence[str]) -> tuple[Support | None, ...]:
    """Return the support of each column, from declarations COLUMN=SUPPORT; None where nothing is said.

    Raises:
        UsageError: a declaration is malformed, names no column, or is the second one of its column.
    """
    found: dict[str, Support] = {}
    for declaration in declarations:
        column, equals, text = declaration.rpartition("=")
        if not equals:
            raise UsageError(f"expected a declaration COLUMN=SUPPORT, such as age='integer 0:'; {declaration!r} came")
        column = choose("column", column.strip(), columns)
        if column in found:
            raise UsageError(f"column {column!r} has two declared supports: '{found[column]}' and {text.strip()!r}")
        found[column] = Support.parse(text)
    return tuple(found.get(column) for column in columns)


def of_table(
    source: str,
    rows: np.ndarray,
    levels: int | None,
    columns: Sequence[str] | None,
    declarations: Sequence[str],
    place: Callable[[int], str],
) -> tuple[Support | None, ...] | None:
    """Return the declared supports of rows, (N, D) for a table, which lie within them; None where none are declared.

    Raises:
        UsageError: the rows are no table of real numbers, a declaration is wrong, or a value lies outside.
    """
    if not declarations:
        return None
    if levels is not None or rows.ndim != 2:
        raise UsageError(f"supports are declared for the columns of tables; {source} has levels, or pictures")
    supports = declared(declarations, names_of(columns, rows.shape[1]))
    require_inside(source, rows, columns, supports, place)
    return supports


def require_inside(
    source: str,
    x: np.ndarray,
    columns: Sequence[str] | None,
    supports: Sequence[Support | None],
    place: Callable[[int], str] = "row {}".format,
) -> None:
    """Refuse values outside the support of their column.

    Args:
        source: what the message calls the data.
        x: float array (N, D).
        columns: names of the D columns, or None.
        supports: those of the D columns, None where nothing is declared.
        place: tells where in the source the row of a given index (from 0) stands.

    Raises:
        UsageError: names the first such value, where it stands, and the support.
    """
    names = names_of(columns, x.shape[1])
    for k, support in enumerate(s or Support() for s in supports):
        bad = np.flatnonzero(support.outside(x[:, k]))
        if len(bad):
            value = float(x[bad[0], k])
            more = f" ({len(bad) - 1} more like it)" if len(bad) > 1 else ""
            raise UsageError(
                f"{source}: {feature(k, names)} has {_told(value)} at {place(int(bad[0]))}, outside its declared"
                f" support '{support}'{more}{_advice(value, support)}"
            )


def _advice(value: float, support: Support) -> str:
    if not (support.whole and abs(value) > LARGEST_WHOLE):
        return ""
    return f"; integers beyond {LARGEST_WHOLE:,} are as good as real in float32: declare the column real"

"""Lists, and where something was written, as lines of text."""

from collections.abc import Mapping
from typing import Any

from longflow.words.result import Result


def list_words(result: Result) -> str:
    """Return the two lists."""
    lines = ["models", *rows(result["models"])]
    return "\n".join([*lines, "data, or a path: folder of pictures, .npz, .npy, .csv, .parquet", *rows(result["data"])])


def rows(entries: Mapping[str, str]) -> list[str]:
    """Return a line for each entry, its name in a column."""
    return [f"  {name:<17}{about}" for name, about in entries.items()]


def sizes_words(result: Result) -> str:
    """Return a line for each preset: parameters, and what is published."""
    lines = []
    for name, size in result["presets"].items():
        shape = "x".join(map(str, size["shape"]))
        lines.append(f"{name}, {shape}: {size['parameters']:,} parameters; published: {size['published']}")
    return "\n".join(lines)


def wrote_words(result: Result) -> str:
    """Return where something was written, and the rest of the result."""
    rest = ", ".join(f"{k} {_word(v)}" for k, v in result.items() if k != "out")
    return f"wrote {result['out']} ({rest})"


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_word(v)}" for k, v in value.items())
    if isinstance(value, list):
        return " ".join(map(_word, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)

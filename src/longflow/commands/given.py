"""What is drawn given what: the contexts of samples, and the columns that they are written in."""

import re
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from longflow.commands.datasets import check_contexts, context_of, dataset_of
from longflow.data import Events, read
from longflow.errors import UsageError, choose
from longflow.runs import Run
from longflow.seeds import check_seed

FAR = 0.1
"""Share of a context's range in the training rows beyond which a value outside of it is warned of."""

LARGEST = float(np.finfo(np.float32).max)
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def contexts_to_draw(run: Run, n: int, given: str | None, file: str | None, seed: int) -> np.ndarray | None:
    """Return n contexts, (n, *context_shape), float32: all that of `given`, or those of a file in turn, or of training.

    With neither they are those of training rows, drawn at random: a sample is then one of p(x, context). None for a run
    whose density has no contexts. A value far outside the range of the training rows is warned of on stderr.
    """
    config = run.config()
    if not config.get("embedding"):
        if given is not None or file is not None:
            raise UsageError(f"{run} holds a density without contexts: nothing can be given (train --context)")
        return None
    if given is not None and file is not None:
        raise UsageError("expected --given or --given-file, not both")
    if given is not None:
        found = np.array([_values(config, given)], np.float32)
    elif file is not None:
        found = _of_file(run, config, file)
    else:
        known = dataset_of(run).contexts
        assert known is not None
        train = known.splits["train"]
        return train[np.random.default_rng(check_seed(seed)).integers(len(train), size=n)]
    _warn(config, found)
    return found[np.arange(n) % len(found)]


def _of_file(run: Run, config: Mapping[str, Any], file: str) -> np.ndarray:
    content = read(file, context_of(config))
    check_contexts(run, content.contexts, file)
    found = content.events.contexts
    if found is None or not len(found):
        raise UsageError(f"{file} has no rows to take contexts of")
    return found


def _values(config: Mapping[str, Any], given: str) -> list[float]:
    """Return the numbers of a context, in their order, from "a=3,b=1.5"."""
    names = config["data"]["context_features"]
    if not names:
        raise UsageError("contexts that are no vectors cannot be given by value; expected --given-file")
    found: dict[str, float] = {}
    for part in _parts(given):
        name, _, text = (side.strip() for side in part.rpartition("="))
        if not name or not NUMBER.fullmatch(text) or abs(float(text)) > LARGEST:
            expected = ",".join(f"{name}=NUMBER" for name in names)
            raise UsageError(f'expected --given "{expected}"; {part!r} came')
        if choose("context", name, names) in found:
            raise UsageError(f"the context {name!r} is given twice")
        found[name] = float(text)
    missing = [name for name in names if name not in found]
    if missing:
        raise UsageError(
            f"expected all of the contexts {', '.join(names)} in --given; {', '.join(missing)} did not come"
        )
    return [found[name] for name in names]


def _parts(given: str) -> list[str]:
    """Cut a text at the commas behind values: those before an equals sign belong to a column's name."""
    parts = [""]
    for piece in given.split(","):
        parts[-1] += piece
        if "=" in piece:
            parts.append("")
        elif parts[-1].strip(" ,"):
            parts[-1] += ","
    return [part.rstrip(",") for part in parts if part.strip(" ,")]


def _warn(config: Mapping[str, Any], contexts: np.ndarray) -> None:
    """Say on stderr which numbers of contexts lie far outside what the model was trained on."""
    for k, name in enumerate(config["data"]["context_features"]):
        low, high = (end[k] for end in config["data"]["context_range"])
        least, largest = contexts[:, k].min(), contexts[:, k].max()
        if least < low - FAR * (high - low) or largest > high + FAR * (high - low):
            far = least if low - least > largest - high else largest
            print(
                f"longflow: {name} = {far:g} is far outside the training rows' {low:g} to {high:g}: the density there"
                " is extrapolated",
                file=sys.stderr,
            )


def whole_rows(events: Events, config: Mapping[str, Any]) -> tuple[np.ndarray, list[str]]:
    """Return a table's rows, (N, columns), with their contexts, as the source has them, and the names of the columns.

    Contexts that are an array's numbers follow the rows'; those that are no vectors are left out.
    """
    data, rows = config.get("data", {}), events.rows.reshape(len(events), -1)
    names = data.get("columns") or [f"x{k + 1}" for k in range(rows.shape[1])]
    features = data.get("context_features") or []
    if events.contexts is None or not features:
        return rows, names
    columns = [*names, *features]
    order = data.get("table") or columns
    return np.concatenate((rows, events.contexts), 1)[:, [columns.index(name) for name in order]], order


def refuse_contexts(run: Run) -> None:
    """Raise UsageError for a run whose density is conditional, in a command that has no use for contexts."""
    if run.config().get("embedding"):
        able = "evaluate, score, sample, reconstruct, interpolate, edit, neighbours, quality, check and report"
        raise UsageError(f"{run} holds a conditional density, which is for {able}")

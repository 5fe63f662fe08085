"""The data set of a run, or another that its model can take."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from longflow.data import Content, Contexts, Dataset
from longflow.data import load as load_data
from longflow.data.checks import names_of
from longflow.errors import UsageError, nearest
from longflow.runs import Run


def dataset_of(run: Run, spec: str | None = None) -> Dataset:
    """Load the data set of a run, or another of the same shape and levels; raise UsageError where they differ.

    Columns are found by their names.
    """
    config = run.config()
    own = config.get("data", {})
    chosen = spec or own.get("spec")
    if chosen is None:
        raise UsageError(f"{run} names no data set; say which with --data, where the command has it")
    dataset = load_data(chosen, own.get("quantised"), context_of(config))
    check_like(run, dataset.shape, dataset.levels, dataset.columns, chosen)
    dataset = arranged(run, dataset)
    check_contexts(run, dataset.contexts, chosen)
    dataset = dataset.declare(declarations(config))
    if spec is None and dataset.sha256 != own["sha256"]:
        raise UsageError(
            f"'{chosen}' has changed since {run} was trained (sha256 {dataset.sha256[:12]}, not {own['sha256'][:12]})"
        )
    if spec is None and own.get("labels_sha256") not in (None, dataset.labels_sha256):
        raise UsageError(f"the labels of '{chosen}' have changed since {run} was trained")
    if spec is None and dataset.contexts is not None and dataset.contexts.sha256 != own["context_sha256"]:
        raise UsageError(f"the contexts of '{chosen}' have changed since {run} was trained")
    return dataset


def declarations(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the supports that a run's columns were declared to have, COLUMN=SUPPORT each."""
    supports = config.get("supports")
    if not supports:
        return ()
    names = names_of(config.get("data", {}).get("columns"), len(supports))
    return tuple(f"{name}={support}" for name, support in zip(names, supports, strict=True) if support)


def context_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns, or the array, that a run's density is conditional on; none for others."""
    return tuple(config.get("data", {}).get("context_columns") or ())


def check_contexts(run: Run, contexts: Contexts | None, name: str) -> None:
    """Raise UsageError unless contexts have the shape of those that the run was trained on."""
    embedded = run.config().get("embedding")
    if embedded and contexts is not None and list(contexts.shape) != embedded["context_shape"]:
        wanted = tuple(embedded["context_shape"])
        raise UsageError(f"{run} expects contexts of shape {wanted}; those of '{name}' have {contexts.shape}")


def check_like(
    run: Run, shape: tuple[int, ...], levels: int | None, columns: tuple[str, ...] | None, name: str
) -> None:
    """Raise UsageError unless data of that shape, levels and columns, in any order, are as the run's."""
    config = run.config()
    own = config.get("data", {}).get("columns") or []
    if own and columns is not None:
        _check_columns(run, own, columns, name)
    expected = (tuple(config["shape"]), config["levels"])
    if (tuple(shape), levels) != expected:
        raise UsageError(
            f"{run} expects data of shape {expected[0]} and levels {expected[1]};"
            f" '{name}' has shape {tuple(shape)} and levels {levels}"
        )


def _check_columns(run: Run, own: Sequence[str], columns: Sequence[str], name: str) -> None:
    missing, unknown = [c for c in own if c not in columns], [c for c in columns if c not in own]
    if missing or unknown:
        lacks = f" lacks {', '.join(missing)}" if missing else ""
        more = f" has {', '.join(f'{c}{nearest(c, missing)}' for c in unknown)} beside them" if unknown else ""
        raise UsageError(
            f"{run} expects the columns {', '.join(own)}; '{name}'{lacks}{' and' * bool(lacks and more)}{more}"
        )


def order_of(run: Run, columns: Sequence[str] | None) -> list[int] | None:
    """Return the places, among columns that `check_like` passed, of a run's, in its order; None where they have it."""
    own = run.config().get("data", {}).get("columns")
    if not own or columns is None or list(columns) == own:
        return None
    return [list(columns).index(name) for name in own]


Table = TypeVar("Table", Content, Dataset)


def arranged(run: Run, data: Table) -> Table:
    """Return data that `check_like` passed with the columns of a table in the order that the run was trained on."""
    order = order_of(run, data.columns)
    if order is None:
        return data
    rows = {split: np.ascontiguousarray(x[:, order]) for split, x in data.splits.items()}
    supports = data.supports and tuple(data.supports[k] for k in order)
    return replace(data, splits=rows, columns=tuple((data.columns or ())[k] for k in order), supports=supports)

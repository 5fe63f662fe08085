"""What a model that learns a representation is worth: its objective's parts, and the classes that its codes tell."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from longflow.commands.rows import ROWS_AT_ONCE
from longflow.commands.watch import LITTLE
from longflow.data import Dataset
from longflow.errors import UsageError
from longflow.families import Representation, RepresentationObjective
from longflow.families.infomax import divergence_bound
from longflow.quality import calibration_error
from longflow.seeds import fixed_draws
from longflow.units import standard_error

JUDGED = {"rate": "beta", "kl": "gamma"}
"""Terms that say how much codes say, and the weight that pays for each."""


def measure_codes(
    run: Mapping[str, Any], model: Representation, dataset: Dataset, *, split: str, n: int | None, draws: int, seed: int
) -> dict[str, Any]:
    """Return what `evaluate` says of a representation, `run` being its configuration; there is no likelihood.

    `terms` are means in nats. A classifier's `cross_entropy` is in bits, of the predictions at the mean code or, with
    draws, of their mean; `noisy_cross_entropy` is of one draw, and `rate_bits` bounds I(X; Z) from above.
    `js_bounds` are lower bounds on a Jensen-Shannon divergence, in nats, at most log 2: no mutual information.
    """
    rows = dataset.split(split)[:n]
    labels = labels_of(model, dataset, split, len(rows))
    terms = terms_of(model, rows, labels, seed)
    bounds = {name: divergence_bound(terms[name]) for name in ("global", "local") if name in terms}
    return {
        "model": run["model"],
        "data": dataset.name,
        "data_sha256": dataset.sha256,
        "split": split,
        "n": len(rows),
        "nats": None,
        "bits_per_dim": None,
        "stderr_bits_per_dim": None,
        "likelihood": "none",
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "terms": terms,
        **({"js_bounds": bounds} if bounds else {}),
        **({} if labels is None else classified(model, rows, labels, terms, draws=draws, seed=seed)),
    }


def classified(
    model: Representation, rows: np.ndarray, labels: np.ndarray, terms: Mapping[str, float], *, draws: int, seed: int
) -> dict[str, Any]:
    """Return what is known of a classifier's predictions, by the mean code or averaged over draws."""
    found = probabilities_of(model, rows, draws=draws, seed=seed)
    wrong = (found.argmax(1) != labels).astype(np.float64)
    likely = np.maximum(found[np.arange(len(rows)), labels], np.finfo(found.dtype).tiny)
    return {
        "error": float(wrong.mean()),
        "stderr_error": standard_error(wrong),
        "cross_entropy": float(-np.log2(likely).mean()),
        "calibration_error": calibration_error(found, labels),
        "draws": draws,
        "noisy_cross_entropy": terms["cross_entropy"] / math.log(2),
        "rate_bits": terms["rate"] / math.log(2),
    }


def validated(
    model: Representation, objective: RepresentationObjective, rows: np.ndarray, labels: np.ndarray | None, seed: int
) -> dict[str, float]:
    """Return what a model is worth on validation rows: its objective in bits, and what that is made of in nats."""
    terms = terms_of(model, rows, labels, seed)
    found = {"validation_loss": objective.judged(terms)}
    found |= {f"validation_{name}": value for name, value in terms.items()}
    if labels is not None:
        found["validation_error"] = float((probabilities_of(model, rows, seed=seed).argmax(1) != labels).mean())
    return found


def silent(found: Mapping[str, float]) -> list[str]:
    """Return what a user should know while a representation trains, a line each: whether its codes say nothing."""
    return [
        f"the code says nothing: its rate is {found[f'validation_{name}']:.2g} nats (a smaller --{weight} helps)"
        for name, weight in JUDGED.items()
        if found.get(f"validation_{name}", LITTLE) < LITTLE
    ]


def labels_of(model: Representation, dataset: Dataset, split: str, n: int) -> np.ndarray | None:
    """Return the first n labels of a split, for a model that predicts classes; None for one that needs none."""
    if not model.predicts:
        return None
    if dataset.labels is None:
        raise UsageError(f"a classifier is measured on labels; {dataset.name} has none")
    labels = dataset.labels[split][:n]
    if len(labels) and (labels.min() < 0 or labels.max() >= model.predicts):
        raise UsageError(
            f"a classifier of {model.predicts} classes expects labels 0 to {model.predicts - 1};"
            f" {dataset.name} has {labels.min()} to {labels.max()}"
        )
    return labels


def terms_of(model: Representation, rows: np.ndarray, labels: np.ndarray | None, seed: int) -> dict[str, float]:
    """Return the mean of each term of the objective over rows, in nats; noise and order are fixed by the seed.

    Negatives are other rows of a batch, and data sorted by class would have them all of the same one.
    """
    sums: dict[str, float] = {}
    order = np.random.default_rng(seed).permutation(len(rows))
    rows, classes = rows[order], None if labels is None else _even(model, labels[order])
    with fixed_draws(seed), torch.inference_mode():
        for x in _even(model, rows):
            values = model.terms(_like(model, x), None if classes is None else next(classes))
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value.double().sum())
    return {name: total / len(rows) for name, total in sums.items()}


def probabilities_of(model: Representation, rows: np.ndarray, *, draws: int = 0, seed: int = 0) -> np.ndarray:
    """Return the probabilities of the classes, (N, K)."""
    with fixed_draws(seed), torch.inference_mode():
        found = [model.probabilities(_like(model, x), draws) for x in _even(model, rows)]
    return torch.cat(found).cpu().numpy()


def _even(model: Representation, rows: np.ndarray) -> Iterator[torch.Tensor]:
    """Yield rows in parts of nearly equal size, so that none is of one row, which would have no negatives."""
    parts = np.array_split(rows, max(1, math.ceil(len(rows) / ROWS_AT_ONCE)))
    return (torch.as_tensor(part).to(next(model.parameters()).device) for part in parts)


def _like(model: Representation, x: torch.Tensor) -> torch.Tensor:
    return x.to(next(model.parameters()))

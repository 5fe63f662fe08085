"""Likelihood of a data set under a run's model, with its error and its convention."""

import math
from typing import Any, Literal

import numpy as np
import torch

from longflow.commands.configure import classifier_alone
from longflow.commands.datasets import context_of, dataset_of
from longflow.commands.estimates import estimation, refined, solved, use_terms
from longflow.commands.represent import measure_codes
from longflow.commands.rows import ROWS_AT_ONCE, batches_of, pairs_of
from longflow.commands.watch import FEW, at_floor, parts_by_row, summary
from longflow.data import Dataset, Events
from longflow.distributions import LatentModel
from longflow.errors import InversionError, UsageError, choose
from longflow.families import Representation
from longflow.models import load
from longflow.runs import Run
from longflow.seeds import check_seed, fixed_draws
from longflow.training.device import prepare
from longflow.units import bits_per_dim, standard_error

Split = Literal["train", "validation", "test"]

ROUND_TRIP_ROWS = 256
MOST_ESTIMATED = 1000
"""Events that are scored by default where each takes dozens of passes."""

DRAWS = 4
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def evaluate(
    run: str,
    *,
    data: str | None = None,
    split: Split = "test",
    n: int | None = None,
    importance_samples: int = 1,
    terms: int | None = None,
    draws: int | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: Literal["float32", "float64"] = "float32",
) -> dict[str, Any]:
    """Score a split of a data set (the run's own by default) under the run's model.

    Returns mean nats for an event and bits/dim with its standard error over the events, in the units of the stored
    data; `likelihood` says what they are; of a conditional density, log p(x | context). A model of classes is scored
    without labels, as the mixture of its classes, and `accuracy` says how many labels Bayes' rule and a classifier
    find. Where a residual flow estimates its log-determinant, `log_det` says how, with the bound on its bias and its
    part of the standard error. Where a flow solves a differential equation, `discretisation` says by how much twice as
    many steps change log p. For an autoencoder it is a lower bound, which more importance samples tighten, and
    `parts` are its reconstruction and KL, of one draw; where the likelihood is none there are no bits. Of a
    representation there are the terms of its objective and, of a bottleneck, error, cross-entropy and calibration of
    its predictions.

    Args:
        run: A run directory.
        data: Another data set than the run's own, a name or a path.
        split: The part of the data.
        n: Only the first n events; by default all, or 1,000 where log-determinants are estimated.
        importance_samples: Draws of the dequantiser, and of an autoencoder's code, for each event; more tighten the
            bound.
        terms: Exact terms of an estimated log-determinant; by default, and at least, those of the run.
        draws: Log-likelihoods (bounds or estimates) that are averaged for each event; by default 4 where
            log-determinants are estimated. Of a bottleneck, codes whose predictions are averaged; by default they are
            those at the mean code.
        seed: Seed of the draws.
        device: auto, cpu, cuda, cuda:1, ...
        dtype: Floating-point type of the model.
    """
    place = prepare(device)
    folder = Run.open(run)
    model = load(folder.path).to(place, DTYPES[choose("dtype", dtype, DTYPES)])
    for name, value in (("-n", n), ("--draws", draws)):
        if value is not None and value < 1:
            raise UsageError(f"expected {name} >= 1; {value} came")
    if isinstance(model, Representation):
        if terms is not None or importance_samples != 1 or (draws and not model.predicts):
            raise UsageError(f"{folder} holds no density: there is nothing to draw for it, or to estimate")
        return measure_codes(
            folder.config(), model, dataset_of(folder, data), split=split, n=n, draws=draws or 0, seed=seed
        )
    check_draws(model, importance_samples, draws)
    if terms is not None:
        use_terms(model, terms)
    return measure(
        folder,
        model,
        dataset_of(folder, data),
        split=split,
        n=n,
        importance_samples=importance_samples,
        draws=draws,
        seed=seed,
    )


def measure(
    run: Run,
    model: LatentModel,
    dataset: Dataset,
    *,
    split: Split = "test",
    n: int | None = None,
    importance_samples: int = 1,
    draws: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Score a split of a data set under a model at hand; see `evaluate`."""
    estimates = model.estimates
    events = dataset.events(split)[: n or (MOST_ESTIMATED if estimates else None)]
    rows = events.rows
    drawn = drawn_likelihoods(model, events, samples=importance_samples, draws=draws, seed=seed)
    nats = drawn.mean(0)
    bits = bits_per_dim(torch.from_numpy(nats), dataset.dims).numpy()
    labels = dataset.labels if model.predicts else None
    proper = model.likelihood != "none"
    return {
        "model": run.config()["model"],
        **({"trained": "classifier alone"} if classifier_alone(run.config()) else {}),
        "data": dataset.name,
        "data_sha256": dataset.sha256,
        "split": split,
        "n": len(rows),
        "nats": float(nats.mean()),
        "bits_per_dim": float(bits.mean()) if proper else None,
        "stderr_bits_per_dim": standard_error(bits) if proper else None,
        "likelihood": model.likelihood,
        **({"context": list(given)} if (given := context_of(run.config())) else {}),
        "dequantiser": model.dequantiser,
        "importance_samples": importance_samples,
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "roundtrip_max_abs": round_trip(model, events[:ROUND_TRIP_ROWS]) if model.invertible else None,
        **({} if proper else {"stderr_nats": standard_error(nats)}),
        **({"parts": found} if (found := summary(parts_by_row(model, events, seed))) else {}),
        **({"at_floor": share} if (share := at_floor(model, events)) > FEW else {}),
        **estimation(model, drawn),
        **discretisation(model, events[:ROUND_TRIP_ROWS], seed),
        **({"accuracy": accuracies(model, rows, labels[split][: len(rows)], seed)} if labels else {}),
    }


def check_draws(model: LatentModel, samples: int, draws: int | None = None) -> None:
    """Raise UsageError for draws of what is exact, and for importance samples of an estimate.

    The mean of the exponentials of estimates would be biased upwards.
    """
    if samples < 1:
        raise UsageError(f"expected --importance-samples >= 1; {samples} came")
    for flag, asked in (("--importance-samples", samples > 1), ("--draws", draws is not None)):
        if asked and not model.random:
            raise UsageError(f"{flag} is for likelihoods that are bounds or estimates; this one draws nothing")
    if samples > 1 and model.estimates:
        raise UsageError(
            "--importance-samples > 1 expects exact log-determinants: of estimated ones the bound would be too good"
            " (--draws averages them)"
        )


def drawn_likelihoods(
    model: LatentModel, rows: np.ndarray | Events, *, samples: int = 1, draws: int | None = None, seed: int = 0
) -> np.ndarray:
    """Return log-likelihoods of each row, in nats, of shape (draws, N), each with draws of its own of all noise.

    By default four draws where log-determinants are estimated, and else one.
    """
    check_seed(seed)
    count = draws or (DRAWS if model.estimates else 1)
    seeds = [seed, *(int(s) for s in np.random.SeedSequence(seed).generate_state(count - 1))]
    return np.stack([log_likelihoods(model, rows, samples=samples, seed=own) for own in seeds])


def discretisation(model: LatentModel, rows: np.ndarray | Events, seed: int) -> dict[str, Any]:
    """Return by how much log-likelihoods of rows change, in nats, where solvers take finer steps; {} without a solver.

    Draws are the same, so that the change is the solver's error but for what the finer steps have of it.
    """
    if not solved(model):
        return {}
    own = log_likelihoods(model, rows, seed=seed)
    with refined(model):
        change = log_likelihoods(model, rows, seed=seed) - own
    told = {"n": len(own), "mean_nats": float(change.mean()), "max_abs_nats": float(np.abs(change).max())}
    return {"discretisation": told}


def accuracies(model: LatentModel, rows: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, float]:
    """Return the share of rows whose class is found, by Bayes' rule where the prior knows classes, and by a classifier.

    The likelihood that stands beside it is p(x), that of the mixture log 1/K Σ_y p(x | y) for a prior of classes.
    """
    y = torch.from_numpy(labels).to(next(model.parameters()).device)
    right: dict[str, int] = {}
    with fixed_draws(seed), torch.inference_mode():
        for x, own in zip(batches_of(model, rows), y.split(ROWS_AT_ONCE), strict=True):
            z = model.density.encode(model.spread(x))
            for name, found in model.density.predictions(z).items():
                right[name] = right.get(name, 0) + int((found == own).sum())
    return {name: count / len(rows) for name, count in right.items()}


def classified(model: LatentModel, rows: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, float]:
    """Return the mean cross-entropy of a classifier beside a density, in bits, and the share of its errors."""
    y = torch.from_numpy(labels).to(next(model.parameters()).device)
    with fixed_draws(seed), torch.inference_mode():
        logits = torch.cat([model.logits(x) for x in batches_of(model, rows)])
    bits = torch.nn.functional.cross_entropy(logits, y).item() / math.log(2)
    return {"validation_cross_entropy": bits, "validation_error": float((logits.argmax(1) != y).double().mean())}


def log_likelihoods(model: LatentModel, rows: np.ndarray | Events, *, samples: int = 1, seed: int = 0) -> np.ndarray:
    """Return the log-likelihood of each row, in nats, as float64 of shape (N,); the draws are fixed by the seed."""
    with fixed_draws(seed), torch.inference_mode():
        parts = [model.bound(x, context, samples=samples) for x, context in pairs_of(model, rows)]
    return torch.cat(parts).double().cpu().numpy()


def round_trip(model: LatentModel, rows: np.ndarray | Events) -> float:
    """Return max |decode(encode(x)) - x| of the continuous density, in the units of the data."""
    density = model.density
    with torch.inference_mode():
        try:
            pairs = [(model.middle(x), context) for x, context in pairs_of(model, rows)]
            errors = [(density.decode(density.encode(y, c), c) - y).abs().max() for y, c in pairs]
        except InversionError:
            return math.inf
    return float(torch.stack(errors).max())

"""The log-density of each row of a file."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from longflow.commands.anomalies import Method, anomaly_columns, check_methods
from longflow.commands.datasets import arranged, check_contexts, check_like, context_of, declarations
from longflow.commands.draw import open_model
from longflow.commands.evaluate import check_draws, drawn_likelihoods
from longflow.commands.tables import SUFFIXES, check_table, write_table
from longflow.data import read
from longflow.errors import UsageError
from longflow.units import bits_per_dim


def score(
    run: str,
    file: str,
    *,
    method: tuple[Method, ...] = (),
    background: str | None = None,
    importance_samples: int = 1,
    seed: int = 0,
    out: str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Write the log-density of each row of a file, in its order, as a table (CSV or Parquet).

    Columns: `log_prob`, in nats in the units of the data (of levels, and of an autoencoder: a lower bound), and
    `bits_per_dim`, unless the likelihood is none; where a residual flow estimates log-determinants they are means of
    four draws, and `stderr` is the standard error of `log_prob`. A low log-density is no proof of an anomaly: pictures
    that are simple score high.

    Each --method adds a column that says more for stranger rows, and `p_...`, the share of validation rows that are as
    strange: `log-likelihood` (minus it, no detector of strange pictures), `typicality` (how far it is from that of
    validation rows), `ratio` (to that of --background), `complexity` (less the length of the compressed picture, in
    bits), `latent` (Anderson and Darling's statistic of the latent's numbers). Each fails in known ways: see
    docs/anomaly.md.

    Args:
        run: A run directory.
        file: Folder of pictures, .npz, .npy, .csv or .parquet, shaped as the run's data; levels that fit are the run's.
            Columns and contexts of a conditional density are found by their names, wherever they are in the table.
        method: One or more scores of anomalies, for densities without a context; complexity is for pictures.
        background: Run whose log-likelihood `ratio` divides by; by default one Gaussian of the training rows or, for
            levels, a histogram of each number.
        importance_samples: Draws of the dequantiser and of an autoencoder's code for each row; more tighten the bound.
        seed: Seed of the draws.
        out: Table to write (.csv or .parquet); by default FILE-scores.csv in the run directory.
        device: auto, cpu, cuda, cuda:1, ...
    """
    folder, model = open_model(run, device)
    path = Path(out) if out else folder.path / f"{Path(file).stem}-scores.csv"
    if path.suffix not in SUFFIXES or (out and path.exists()):
        raise UsageError(f"expected --out to be a new {' or '.join(SUFFIXES)} file; '{path}' came")
    check_table(path)
    check_draws(model, importance_samples)
    check_methods(folder, model, method, background)
    content = read(file, context_of(folder.config()))
    if not len(content.rows):
        raise UsageError(f"{file} has no rows")
    own = folder.config()["levels"]
    fits = content.levels is not None and own is not None and content.rows.max() < own
    check_like(folder, content.rows.shape[1:], own if fits else content.levels, content.columns, file)
    check_contexts(folder, content.contexts, file)
    content = arranged(folder, content).declare(declarations(folder.config()))
    drawn = drawn_likelihoods(model, content.events, samples=importance_samples, seed=seed)
    nats = drawn.mean(0)
    columns = {"log_prob": nats}
    if model.likelihood != "none":
        columns["bits_per_dim"] = bits_per_dim(torch.from_numpy(nats), model.dims).numpy()
    if len(drawn) > 1:
        columns["stderr"] = drawn.std(0, ddof=1) / np.sqrt(len(drawn))
    columns |= anomaly_columns(
        folder,
        model,
        content.rows,
        nats,
        method,
        background=background,
        importance_samples=importance_samples,
        seed=seed,
        device=device,
    )
    write_table(path, columns)
    return {"out": str(path), "n": len(nats), "mean_log_prob": float(np.mean(nats)), "likelihood": model.likelihood}

"""What codes hold: their KL to the prior, taken apart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from longflow.commands.datasets import dataset_of
from longflow.commands.draw import open_any
from longflow.commands.evaluate import Split
from longflow.commands.rows import batches_of
from longflow.commands.watch import ACTIVE_KL
from longflow.distributions import LatentModel, StandardNormal
from longflow.errors import UsageError
from longflow.families import VAE, Autoencoder, Coder, Representation
from longflow.quality.codes import LogPrior, diagnose_codes, error_of_draws
from longflow.seeds import check_seed, fixed_draws

MOST = 5000

PARTS = (
    "kl_of_dims", "prior_classes", "active_units", "mutual_information", "stderr", "gap", "stderr_gap",
    "kl_of_groups", "used_groups",
)  # fmt: skip
"""What is null where codes are not of the kind that has it."""


@dataclass(frozen=True, eq=False)
class NormalCodes:
    """Posteriors q(z | x_n) = N(μ_n, diag σ_n²) of N events and their prior.

    Attributes:
        means: μ_n, (N, d), in float64.
        log_scales: log σ_n, (N, d), in float64.
        log_prior: codes (M, d) to log p(z), (M,), in nats; None for N(0, I).
        classes: classes or clusters that the prior is the mixture of; 0 for none.
    """

    means: np.ndarray
    log_scales: np.ndarray
    log_prior: LogPrior | None = None
    classes: int = 0


def diagnose(
    run: str,
    *,
    data: str | None = None,
    split: Split = "test",
    n: int | None = None,
    draws: int = 4,
    seed: int = 0,
    device: str = "auto",
) -> dict[str, Any]:
    """Measure codes: KL of each number or group, active units, mutual information, aggregate-posterior gap.

    The mean of KL(q(z | x) ‖ p(z)) is I(X; Z) of the n events plus KL(q(z) ‖ p(z)), how far all the codes together are
    from the prior that samples come from (Hoffman & Johnson 2016). Mutual information is estimated from draws of every
    code and cannot exceed log n, its ceiling: where it is near, it says no more than that codes tell these events
    apart. A unit is active where its mean varies over events by more than 0.01 (Burda et al. 2016), in the scale of the
    code, which N(0, I) fixes and a learned prior need not. All in nats.

    Under N(0, I) KL is in closed form, and the sum of that of each number. Under another prior it is drawn, and has no
    such parts; a prior of classes or clusters is the mixture of them all, as the model is scored without labels. The
    code of f-VAE is taken before the flow, which changes none of these but the active units. Where q(z | x) is not
    normal, there is KL alone, of each group where there are groups (nvae), given those above it.

    Args:
        run: A run directory of an autoencoder or of a representation with noisy codes.
        data: Another data set than the run's own, a name or a path.
        split: The part of the data.
        n: Events, the first of the split; by default at most 5,000, as each code is compared with every event.
        draws: Codes of each event.
        seed: Seed of the draws.
        device: auto, cpu, cuda, cuda:1, ...
    """
    folder, model = open_any(run, device)
    name = folder.config()["model"]
    if not isinstance(model, Representation) and not isinstance(model.density, Autoencoder):
        raise UsageError(f"diagnose expects a model with noisy codes (vae, nvae, vib, ...); {folder} holds a {name}")
    if (n is not None and n < 2) or draws < 2:
        raise UsageError(f"expected -n >= 2 and --draws >= 2; {n} and {draws} came")
    check_seed(seed)
    rows = dataset_of(folder, data).split(split)[: MOST if n is None else n]
    with torch.inference_mode():
        found = measured(model, rows, draws, seed)
    return {
        "model": name,
        "split": split,
        "n": len(rows),
        **dict.fromkeys(PARTS),
        **found,
        "dims": math.prod(model.latent_shape),
        "ceiling": math.log(len(rows)),
        "draws": draws,
    }


def measured(model: Coder, rows: np.ndarray, draws: int, seed: int) -> dict[str, Any]:
    """Return what is known of the codes of rows, levels taken at the middles of their bins."""
    if isinstance(model, Representation):
        return taken_apart(NormalCodes(*_joined([model.code(x) for x in batches_of(model, rows)])), draws, seed)
    codes = codes_of(model, rows)
    return kl_alone(model, rows, draws, seed) if codes is None else taken_apart(codes, draws, seed)


def codes_of(model: LatentModel, rows: np.ndarray) -> NormalCodes | None:
    """Return the codes of rows; None where their posteriors are not normal."""
    density = model.density
    if not isinstance(density, VAE):
        return None
    codes = [density.code(model.middle(x)) for x in batches_of(model, rows)]
    normal = [code for code in codes if code is not None]
    return NormalCodes(*_joined(normal), log_prior_of(density), density.prior.classes) if normal else None


def log_prior_of(density: VAE) -> LogPrior | None:
    """Return log p(z) of codes (M, d) in float64, computed in the model's type; None for N(0, I)."""
    if isinstance(density.prior, StandardNormal):
        return None

    def log_prior(z: np.ndarray) -> np.ndarray:
        batches = batches_of(density, z.reshape(-1, *density.prior.shape))
        return torch.cat([density.prior.log_prob(part) for part in batches]).double().cpu().numpy()

    return log_prior


def taken_apart(codes: NormalCodes, draws: int, seed: int) -> dict[str, Any]:
    """Return what normal codes hold."""
    found = diagnose_codes(codes.means, codes.log_scales, log_prior=codes.log_prior, draws=draws, seed=seed)
    return {
        "kl": found.kl,
        "kl_of_dims": None if found.kl_of_dims is None else found.kl_of_dims.tolist(),
        "stderr_kl": found.stderr_kl,
        "prior_classes": codes.classes or None,
        "active_units": found.active,
        "mutual_information": found.mutual_information,
        "stderr": found.stderr,
        "gap": found.gap,
        "stderr_gap": found.stderr_gap,
    }


def kl_alone(model: LatentModel, rows: np.ndarray, draws: int, seed: int) -> dict[str, Any]:
    """Return the mean KL from draws, and that of each group, of which it is the sum: KL's chain rule."""
    with fixed_draws(seed):
        drawn = torch.stack([_divergence(model, rows) for _ in range(draws)], 1).numpy()
    groups = drawn.mean((0, 1))
    found = {"kl": float(groups.sum()), "stderr_kl": error_of_draws(drawn.sum(2))}
    if len(groups) == 1:
        return found
    return {**found, "kl_of_groups": groups.tolist(), "used_groups": int((groups > ACTIVE_KL).sum())}


def _divergence(model: LatentModel, rows: np.ndarray) -> torch.Tensor:
    """Return KL(q(z | x) ‖ p(z)) of rows by groups from one draw of each, (N, groups)."""
    parts = [model.density.parts(model.middle(x))["kl"] for x in batches_of(model, rows)]
    return torch.cat(parts).double().cpu()


def _joined(codes: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[np.ndarray, np.ndarray]:
    """Return means and log-deviations of batches as arrays (N, d), in float64."""
    means, log_scales = (torch.cat(part).flatten(1).double().cpu().numpy() for part in zip(*codes, strict=True))
    return means, log_scales

"""What an autoencoder's codes hold: its KL taken apart."""

from typing import Any

import torch

from longflow.commands.datasets import dataset_of
from longflow.commands.draw import open_model
from longflow.commands.evaluate import Split
from longflow.commands.rows import batches_of
from longflow.distributions import StandardNormal
from longflow.errors import UsageError
from longflow.families import VAE
from longflow.quality.codes import diagnose_codes

MOST = 5000


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
    """Measure an autoencoder's codes: KL of each number, active units, mutual information, aggregate-posterior gap.

    The mean of KL(q(z | x) ‖ N(0, I)) is I(X; Z) of the n events plus KL(q(z) ‖ N(0, I)), how far all the codes
    together are from the prior that samples come from (Hoffman & Johnson 2016). Mutual information is estimated from
    draws of every code and cannot exceed log n, its ceiling: where it is near, it says no more than that codes tell
    these events apart. A unit is active where its mean varies over events by more than 0.01 (Burda et al. 2016). All
    in nats.

    Args:
        run: A run directory of a model whose posterior and prior are normal.
        data: Another data set than the run's own, a name or a path.
        split: The part of the data.
        n: Events, the first of the split; by default at most 5,000, as each code is compared with every event.
        draws: Codes of each event.
        seed: Seed of the draws.
        device: auto, cpu, cuda, cuda:1, ...
    """
    folder, model = open_model(run, device)
    density = model.density
    if not isinstance(density, VAE) or not isinstance(density.prior, StandardNormal):
        raise UsageError(
            f"diagnose expects an autoencoder with a standard normal prior (vae, bnvae); {folder} holds a"
            f" {folder.config()['model']}"
        )
    if (n is not None and n < 2) or draws < 2:
        raise UsageError(f"expected -n >= 2 and --draws >= 2; {n} and {draws} came")
    rows = dataset_of(folder, data).split(split)[: MOST if n is None else n]
    with torch.inference_mode():
        codes = [density.code(model.middle(x)) for x in batches_of(model, rows)]
    if any(code is None for code in codes):
        raise UsageError(f"diagnose expects a normal posterior; that of {folder} is another")
    means, log_scales = (
        torch.cat([code[k] for code in codes if code is not None]).flatten(1).double().cpu().numpy() for k in (0, 1)
    )
    found = diagnose_codes(means, log_scales, draws=draws, seed=seed)
    return {
        "model": folder.config()["model"],
        "split": split,
        "n": found.n,
        "kl": found.kl,
        "kl_of_dims": found.kl_of_dims.tolist(),
        "active_units": found.active,
        "dims": means.shape[1],
        "mutual_information": found.mutual_information,
        "stderr": found.stderr,
        "ceiling": found.ceiling,
        "gap": found.gap,
        "draws": draws,
    }

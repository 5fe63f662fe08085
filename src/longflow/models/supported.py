"""Densities of columns with declared supports, and the units that a model takes from its training rows."""

from collections.abc import Sequence

import numpy as np
import torch

from longflow.bijections import Standardise, Unconstrain
from longflow.data import Support
from longflow.distributions import Dequantised, Injective, MixedDequantised
from longflow.errors import UsageError
from longflow.families import Coder, Representation
from longflow.nets import Standardiser


def supported(model: Coder, supports: Sequence[Support]) -> Coder:
    """Make a density of the whole line that of columns with these supports, one for each.

    Ends become an `Unconstrain` before all else, and columns of whole numbers are dequantised (`MixedDequantised`).
    Whatever standardises is to stand before already: it then sees unconstrained numbers.

    Raises:
        UsageError: the model is no density of vectors of as many numbers.
    """
    if isinstance(model, Representation | Injective) or model.levels is not None:
        raise UsageError("supports are for densities of real vectors; this model is none")
    if model.shape != (len(supports),):
        raise UsageError(f"expected a support for each number of an event of shape {model.shape}; {len(supports)} came")
    if any(s.bounded for s in supports):
        low, high = zip(*(s.interval for s in supports), strict=True)
        model.preprocess(Unconstrain(low, high))
    if not any(s.whole for s in supports):
        return model
    return MixedDequantised(
        model, low=[s.low for s in supports], high=[s.high for s in supports], whole=[s.whole for s in supports]
    )


def fit_units(model: Coder, rows: np.ndarray, contexts: np.ndarray | None = None) -> None:
    """Set what the first layers take from the training rows (N, *shape), and from their dequantisation.

    They are the insets of an `Unconstrain`, and the mean and deviation of a `Standardise` of features, which are those
    of what the former makes of the rows. Levels add the exact moments of their noise; whole columns one draw of it.
    And the mean and deviation of what standardises contexts, from the contexts (N, ...).
    """
    rows = _unconstrained(model, rows)
    noise = (1 / 2, 1 / 12) if isinstance(model, Dequantised) else (0.0, 0.0)
    layers = [m for m in model.modules() if isinstance(m, Standardise) and m.loc.dim() > 0]
    for layer in layers:
        wide = rows.astype(np.float64)
        axes = (0, *range(2, wide.ndim))
        mean, std = wide.mean(axes) + noise[0], np.sqrt(wide.var(axes) + noise[1])
        layer.loc.copy_(torch.from_numpy(mean).reshape(layer.loc.shape))
        layer.scale.copy_(torch.from_numpy(std).reshape(layer.scale.shape))
    for before in [m for m in model.modules() if isinstance(m, Standardiser)]:
        assert contexts is not None
        before.fit(torch.from_numpy(contexts))


def _unconstrained(model: Coder, rows: np.ndarray) -> np.ndarray:
    """Return what the first layers before any standardising make of rows: draws in bins, on the whole line."""
    if isinstance(model, MixedDequantised):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            rows = model.spread(torch.from_numpy(rows).to(next(model.parameters()))).cpu().numpy()
    for ends in [m for m in model.modules() if isinstance(m, Unconstrain)]:
        x = torch.from_numpy(rows).to(ends.low)
        ends.adapt_ends(x)
        rows = ends(x)[0].cpu().numpy()
    return rows

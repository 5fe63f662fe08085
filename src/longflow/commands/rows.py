"""Rows of a data set through a model: in batches, with draws that a seed fixes."""

from collections.abc import Iterator

import numpy as np
import torch

from longflow.data import Events
from longflow.families import Coder

ROWS_AT_ONCE = 500


def batches_of(model: torch.nn.Module, rows: np.ndarray) -> Iterator[torch.Tensor]:
    """Yield the rows as tensors of the model's dtype and device, some hundred at a time."""
    like = next(model.parameters())
    return (torch.as_tensor(rows[i : i + ROWS_AT_ONCE]).to(like) for i in range(0, len(rows), ROWS_AT_ONCE))


def pairs_of(model: torch.nn.Module, rows: np.ndarray | Events) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Yield rows and their contexts, None where there are none, as tensors like those of `batches_of`."""
    events = Events.of(rows)
    contexts = None if events.contexts is None else batches_of(model, events.contexts)
    return ((x, None if contexts is None else next(contexts)) for x in batches_of(model, events.rows))


def latents_of(model: Coder, rows: np.ndarray | Events) -> torch.Tensor:
    """Return the latents or codes of rows, (N, *latent_shape); a density takes levels at the middle of their bins."""
    with torch.inference_mode():
        return torch.cat([model.encode(x, context) for x, context in pairs_of(model, rows)])

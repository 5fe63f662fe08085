"""Draws that a seed fixes, without a trace in the caller's generators."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from longflow.errors import UsageError


def check_seed(seed: int) -> int:
    """Return a seed that all generators take; raise UsageError for another."""
    if not 0 <= seed < 2**63:
        raise UsageError(f"expected a seed of 0 to 2^63 - 1; {seed} came")
    return seed


@contextmanager
def fixed_draws(seed: int) -> Iterator[None]:
    """Start torch's generators at `seed`; put them back afterwards."""
    check_seed(seed)
    used = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=used):
        torch.manual_seed(seed)
        yield


def derived(seed: int, *keys: int) -> int:
    """Return the seed of another stream of draws, independent of those of `seed` and of other keys."""
    return int(np.random.SeedSequence((seed, *keys)).generate_state(1, np.uint64)[0] >> 1)

"""Are samples copies of training rows? Their distance to the nearest one, beside that of rows held out."""

from dataclasses import dataclass

import numpy as np

from longflow.errors import UsageError
from longflow.quality.distances import nearest

QUANTILE = 0.01


@dataclass(frozen=True)
class Memorisation:
    """Distances to the nearest training row, of samples beside held-out rows, in the units of the rows.

    Blur and low temperatures shorten distances too: a ratio below 1 is a copy only where `near_share` and `copies`
    say so, or the eye does.

    Attributes:
        median: that of the samples.
        held_out_median: that of rows that training has not seen.
        near_share: the share of samples nearer than the held-out rows' 1% quantile: 0.01 for what is no copy.
        near_share_stderr: its standard error under 0.01, with the quantile's own, from both counts.
        copies: the share of samples that are a training row, number by number.
        held_out_copies: that of held-out rows: data may repeat themselves.
    """

    median: float
    held_out_median: float
    near_share: float
    near_share_stderr: float
    copies: float
    held_out_copies: float

    @property
    def ratio(self) -> float:
        """The median distance of samples over that of held-out rows: 1 for what is no copy; NaN where that is 0."""
        return self.median / self.held_out_median if self.held_out_median else float("nan")


def find_copies(samples: np.ndarray, held_out: np.ndarray, train: np.ndarray) -> Memorisation:
    """Compare samples and held-out rows by their Euclidean distances to the nearest of the training rows.

    Args:
        samples: (N, *shape).
        held_out: (M, *shape), of the data but not of training.
        train: all that the model was trained on: a part of it would hide copies of the rest.
    """
    if min(map(len, (samples, held_out, train))) == 0 or len({x.shape[1:] for x in (samples, held_out, train)}) > 1:
        raise UsageError(
            f"expected rows of one shape, at least one of each kind; {samples.shape}, {held_out.shape} and"
            f" {train.shape} came"
        )
    ours, theirs = nearest(samples, train), nearest(held_out, train)
    return Memorisation(
        median=float(np.median(ours)),
        held_out_median=float(np.median(theirs)),
        near_share=float((ours < np.quantile(theirs, QUANTILE)).mean()),
        near_share_stderr=float(np.sqrt(QUANTILE * (1 - QUANTILE) * (1 / len(ours) + 1 / len(theirs)))),
        copies=float((ours == 0).mean()),
        held_out_copies=float((theirs == 0).mean()),
    )

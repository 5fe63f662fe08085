"""The digits of scikit-learn (Alpaydin and Kaynak, 1998), which need no download."""

import numpy as np

from longflow.data.dataset import Dataset
from longflow.data.splitting import cut


def digits() -> Dataset:
    """Load 1,797 handwritten digits, 1x8x8, 17 levels, shuffled once and for all."""
    # Importing scikit-learn takes a second, which listing the catalogue should not.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    held_out = {"validation": 180, "test": 360}
    splits = cut(bunch.images[:, None].astype(np.uint8), held_out)
    return Dataset("digits", splits, 17, cut(bunch.target.astype(np.int64), held_out))

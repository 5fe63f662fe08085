"""What samples and data are compared by: features of rows, of networks of our own, so that no distance is an FID."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longflow.errors import UsageError
from longflow.units import counted

ROWS_AT_ONCE = 500
FEATURES = 64
LEAST_SIDE = 8


@dataclass(frozen=True, eq=False)
class Material:
    """The rows of a data set that features are made from.

    Attributes:
        train: (N, *shape); `labels` are theirs, (N,), or None.
        test: (M, *shape), which only the accuracy of a classifier is taken from; `test_labels` are theirs.
        sha256: of the data; `labels_sha256` that of the labels, or None.
        levels: grey levels of the data, or None.
    """

    train: np.ndarray
    test: np.ndarray
    sha256: str
    labels: np.ndarray | None = None
    test_labels: np.ndarray | None = None
    labels_sha256: str | None = None
    levels: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a row."""
        return self.train.shape[1:]


class Extractor(nn.Module, ABC):
    """Turns rows, in the units of the data, into features.

    `forward` maps (B, *shape) to (B, F). What was learned of the data is in parameters and buffers.
    """

    name: str
    """What results call the features."""
    shape: tuple[int, ...]

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return the features of rows x, (B, F)."""

    def features(self, rows: np.ndarray) -> np.ndarray:
        """Return the features of rows (N, *shape), (N, F), in float64."""
        return self._mapped(self, rows)

    def classes(self, rows: np.ndarray) -> np.ndarray | None:
        """Return the class that each row is taken for, (N,); None where features know no classes."""
        return None

    @property
    def sha256(self) -> str:
        """Hash of all weights: the same features have the same one."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _mapped(self, function: nn.Module, rows: np.ndarray) -> np.ndarray:
        if rows.shape[1:] != self.shape:
            raise UsageError(f"the features are of rows of shape {self.shape}; {rows.shape[1:]} came")
        like = next(iter(self.state_dict().values()))
        with torch.inference_mode():
            parts = [
                function(torch.as_tensor(rows[i : i + ROWS_AT_ONCE]).to(like))
                for i in range(0, len(rows), ROWS_AT_ONCE)
            ]
        found = torch.cat(parts).double().cpu().numpy()
        wrong = int((~np.isfinite(found)).any(1).sum())
        if wrong:
            raise UsageError(
                f"features expect finite numbers, not too large; not so in {wrong} of {counted(len(rows), 'row')}"
            )
        return found


class Classifier(Extractor):
    """A small convolutional classifier of pictures (C, H, W); features are what its last layer sees, 64 of them.

    Each is of mean 0 and deviation 1 over the training rows, so that distances do not depend on how large they grew. It
    is trained on the labels of the data that samples are compared to: what labels do not depend on, such as
    sharpness, it sees dimly.
    """

    name = "classifier of the labels"

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.shape = shape
        stride = 2 if min(shape[1:]) > LEAST_SIDE else 1
        self.body = nn.Sequential(
            Standardised(()),
            nn.Conv2d(shape[0], 32, 3, stride=stride, padding=1),
            nn.SiLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * 64, FEATURES),
            nn.SiLU(),
        )
        self.last = nn.Linear(FEATURES, classes)
        self.units = Standardised((FEATURES,))

    def forward(self, x: Tensor) -> Tensor:
        return self.units(self.body(x))

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of the classes, (B, K)."""
        return self.last(self.body(x))

    def classes(self, rows: np.ndarray) -> np.ndarray:
        return self._mapped(nn.Sequential(self.body, self.last), rows).argmax(1)

    def fit_pixels(self, train: np.ndarray) -> None:
        """Set the units of the pixels from training rows: before training."""
        cast(Standardised, self.body[0]).fit(train.mean(dtype=np.float64), train.std(dtype=np.float64))

    def fit_features(self, train: np.ndarray) -> None:
        """Set the units of the features from training rows: after training."""
        found = self.features(train)
        self.units.fit(found.mean(0), found.std(0))


class RandomConvolutions(Extractor):
    """Means and deviations, over the picture, of three levels of random convolutions: textures, for want of labels.

    Each of the 2 · 3 · 32 features is of mean 0 and deviation 1 over the training rows.
    """

    name = "random convolutions"

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.pixels = Standardised(())
        widths = (shape[0], 32, 32, 32)
        # The first level sees every pixel, or fine grain and blur would fall between its strides.
        self.levels = nn.ModuleList(
            [nn.Conv2d(widths[k], widths[k + 1], 3, stride=1 + (k > 0), padding=1) for k in range(3)]
        )
        for level in self.levels:
            nn.init.orthogonal_(level.weight, gain=2**0.5)  # type: ignore[arg-type]
        self.units = Standardised((2 * sum(widths[1:]),))

    def forward(self, x: Tensor) -> Tensor:
        maps, found = self.pixels(x), []
        for level in self.levels:
            maps = F.relu(level(maps))
            found += [maps.mean((2, 3)), maps.std((2, 3), correction=0)]
        return self.units(torch.cat(found, 1))

    def fit(self, train: np.ndarray) -> None:
        """Set the units of pixels and features from training rows."""
        self.pixels.fit(train.mean(dtype=np.float64), train.std(dtype=np.float64))
        found = self.features(train)
        self.units.fit(found.mean(0), found.std(0))


class Whitening(Extractor):
    """Principal components of the training rows, each of variance 1 over them, at most 64.

    Of pictures those that hold 99% of the variance: directions of next to none, such as pixels that are hardly ever
    set, would count as much as all others. Of a table all, in units of its columns' deviations.
    """

    name = "principal components"
    mean: Tensor
    directions: Tensor

    def __init__(self, shape: tuple[int, ...], components: int) -> None:
        super().__init__()
        self.shape = shape
        dims = int(np.prod(shape))
        self.register_buffer("mean", torch.zeros(dims, dtype=torch.float64))
        self.register_buffer("directions", torch.zeros(dims, components, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1).to(self.mean) - self.mean) @ self.directions

    @classmethod
    def fitted(cls, train: np.ndarray) -> "Whitening":
        """Return the whitening of training rows (N, *shape)."""
        x = train.reshape(len(train), -1).astype(np.float64)
        pictures = train.ndim > 2
        units = np.ones(x.shape[1]) if pictures else np.where((std := x.std(0)) > 0, std, 1)
        values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(x / units, rowvar=False)))
        values, vectors = values[::-1], vectors[:, ::-1]
        before = (np.cumsum(values) - values) / values.sum()
        kept = min(FEATURES, int((before < 0.99).sum() if pictures else (values > 1e-9 * values[0]).sum()))
        made = cls(train.shape[1:], kept)
        made.mean.copy_(torch.from_numpy(x.mean(0)))
        # An eigenvector's sign is the solver's whim; the hash shall not be.
        found = vectors[:, :kept] * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(len(values))])[:kept]
        made.directions.copy_(torch.from_numpy(found / np.sqrt(values[:kept]) / units[:, None]))
        return made


class Standardised(nn.Module):
    """(x - m) / s, with one m and one s, of shape (), or those of each feature, (F,)."""

    mean: Tensor
    std: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Return x in these units."""
        return (x - self.mean) / self.std

    def fit(self, mean: np.ndarray, std: np.ndarray) -> None:
        """Set m and s; a feature of next to no deviation has a tenth of the usual one as its s.

        A unit that is all but dead would else be blown up, and decide all distances by the few rows that stir it.
        """
        self.mean.copy_(torch.as_tensor(mean))
        self.std.copy_(torch.as_tensor(np.maximum(std, 0.1 * np.sqrt(np.mean(np.square(std))))))

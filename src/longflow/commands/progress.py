"""The live progress of a training run."""

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from longflow.commands.configure import classifier_alone
from longflow.models import CATALOGUE
from longflow.training import Batches, Progress

SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class Names:
    """What a run's losses are called: the keys of its metrics, and their unit."""

    train: str
    validation: str
    unit: str

    @property
    def trained(self) -> str:
        """The unit of the training loss; none where it is a weighted sum."""
        return f" {self.unit}" if self.train == "train_bits_per_dim" else ""


def names_of(config: Mapping[str, Any]) -> Names:
    """Return the names for a run: with classes its training loss is no likelihood, nor is a classifier's validation.

    The training loss of an autoencoder is its objective's, in bits/dim, which need not be the bound; that of a
    representation is in bits an event. What has no likelihood, or a dear one, is validated by its objective.
    """
    if CATALOGUE[config["model"]].represents:
        return Names("train_loss", "validation_loss", "bits")
    if config.get("objective") is not None:
        improper = config.get("likelihood") == "none" or CATALOGUE[config["model"]].by_loss
        validation = ("validation_loss", "loss") if improper else ("validation_bits_per_dim", "bits/dim")
        return Names("train_loss", *validation)
    if not config["options"].get("classes"):
        return Names("train_bits_per_dim", "validation_bits_per_dim", "bits/dim")
    if classifier_alone(config):
        return Names("train_loss", "validation_cross_entropy", "bits a label")
    return Names("train_loss", "validation_bits_per_dim", "bits/dim")


class Bar:
    """The live progress: one line that rewrites itself on a terminal, a line now and then elsewhere."""

    def __init__(self, steps: int, done: int, batches: Batches, names: Names, *, quiet: bool) -> None:
        self.rows, self.names = batches.batch, names
        self.epochs = math.ceil(steps / batches.steps_per_epoch)
        self.tty = sys.stderr.isatty() and not quiet
        self.quiet = quiet
        self.validation = ""
        self.loss = math.nan
        self.bar = tqdm(
            total=steps * self.rows, initial=done * self.rows, unit=" rows", unit_scale=True,
            disable=not self.tty, dynamic_ncols=True, leave=False,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {rate_fmt}, {remaining} left{postfix}",
        )  # fmt: skip
        self.start, self.done, self.first = time.monotonic(), done, done
        self.steps = steps
        self.spoke = 0.0

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *raised: object) -> None:
        self.bar.close()

    def show(self, progress: Progress) -> None:
        """Count one step."""
        self.done = progress.step
        self.loss = progress.loss if math.isnan(self.loss) else 0.95 * self.loss + 0.05 * progress.loss
        self.bar.update(self.rows)
        self.bar.set_description_str(self._words(progress), refresh=False)
        if not self.tty and not self.quiet and (time.monotonic() - self.spoke > SECONDS_BETWEEN_LINES):
            self._speak(progress)

    def validated(self, record: Mapping[str, Any]) -> None:
        """Show the last validation from now on."""
        self.validation = f", validation {record[self.names.validation]:.4f} (best {record['best']:.4f})"

    def rate(self) -> float:
        """Return training rows a second since the start, validation included."""
        return (self.done - self.first) * self.rows / max(1e-9, time.monotonic() - self.start)

    def _words(self, progress: Progress) -> str:
        return f"epoch {progress.epoch}/{self.epochs}, loss {self.loss:.4f}{self.names.trained}{self.validation}"

    def _speak(self, progress: Progress) -> None:
        rate = self.rate()
        left = (self.steps - self.done) * self.rows / rate
        print(f"{self._words(progress)}, {rate:,.0f} rows/s, {left:.0f} s left", file=sys.stderr, flush=True)
        self.spoke = time.monotonic()

"""The contract of a model that learns what to say of data, not how likely they are."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from longflow.bijections import Bijection, Chain
from longflow.distributions import LatentModel, Likelihood
from longflow.distributions.event_model import EventModel
from longflow.errors import UsageError
from longflow.objectives import Objective


class Representation(EventModel, ABC):
    """A model of codes z of data x: it has an encoder and no density.

    - `code` maps data to the normal codes that they get, whose prior is N(0, I), and `encode` to their means, (B,
      *latent_shape). In evaluation mode rows do not meet.
    - `terms` are what an objective weighs, for each row of a batch, in nats. They are of codes with their noise, as the
      bounds are that they estimate, in evaluation too; rows may meet, as one another's negatives.
    - `probabilities` are of the classes, where it `predicts` some.

    Calling the module is `encode`.
    """

    latent_shape: tuple[int, ...]
    levels: None = None
    """It takes levels as the numbers that they are, without dequantisation."""
    likelihood: Likelihood = "none"
    predicts: int = 0
    """Classes that `probabilities` are of; 0 for none."""

    def __init__(self, shape: tuple[int, ...], latent_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.latent_shape = tuple(shape), tuple(latent_shape)
        self.first = Chain()

    @abstractmethod
    def code(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-deviation of q(z | x) for data x, (B, *shape), each (B, *latent_shape)."""

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data x, (B, *shape), to the means of their codes, (B, *latent_shape); a context is not looked at."""
        return self.code(x)[0]

    @abstractmethod
    def terms(self, x: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return what the objective weighs, by name, each (B,), in nats; the context is the classes, (B,), if any."""

    def probabilities(self, x: Tensor, draws: int = 0) -> Tensor:
        """Return the probabilities of the classes, (B, K), at the centre of the code or, of draws, their mean."""
        raise UsageError("this model knows no classes")

    def preprocess(self, first: Bijection) -> None:
        """Put a bijection of the data before all else, in place."""
        self.first = Chain(first, self.first)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return `encode(x)`."""
        return self.encode(x)

    def inner(self, x: Tensor) -> Tensor:
        """Return data as the networks see them; raise UsageError unless they are of the model's shape and type."""
        self.check_rows(x, self.shape)
        return self.first(x)[0]


Coder = LatentModel | Representation
"""A model with an encoder, whether it has a density or not."""


class RepresentationObjective(Objective, Protocol):
    """What is minimised to learn a representation, and what weights are worth by it."""

    def judged(self, terms: Mapping[str, float]) -> float:
        """Return what weights are worth by the means of `terms` over validation rows, in bits; less is better."""


def check_weight(name: str, value: float) -> None:
    """Raise UsageError unless a weight of an objective is a number of at least 0."""
    if not 0 <= value < math.inf:
        raise UsageError(f"expected {name} >= 0; {value} came")

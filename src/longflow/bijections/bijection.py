"""The contract: a bijection is two methods that each return a value and a log-determinant."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn

Step = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""One direction of a bijection: (value, context) to (value, log-determinant)."""


class Bijection(nn.Module, ABC):
    """An invertible map f of events x (data) to events z (latent) of as many numbers.

    The shapes are the same too, except under a view that changes them (`Flatten`).

    Axis 0 is the batch, axis 1 the features, all further axes are space: a vector is an image without space.

    To write one, implement `forward` and `inverse`, and give `examples`, on which the shared tests run:

    - `forward(x, context)` returns z = f(x), of the shape of x, and log|det ∂z/∂x|, of shape (B,), in nats.
    - `inverse(z, context)` returns x = f⁻¹(z) and log|det ∂x/∂z|, the negative of the other at that point.
    - Neither changes anything: a bijection keeps no state between calls, and rows of a batch do not meet.
    - `context` is one tensor with the same batch, or None. Every bijection takes it; most ignore it. An
      elementwise map reads its parameters from it.
    - `exact` is False where the inverse iterates until it is near enough or the log-determinant is an estimate, not
      where a fixed number of steps reaches the rounding; `estimates` is True where it is one in evaluation mode;
      `discretised` is True where both hold to a solver's error only. `reversible` is False where the inverse does not
      undo what forward does in training mode.

    Call the bijection itself (not `.forward`) where hooks should run, as for any module.
    """

    exact: bool = True
    reversible: bool = True

    @property
    def estimates(self) -> bool:
        """Whether the log-determinant is an estimate in evaluation mode: where that of some bijection inside is."""
        return any(m.estimates for m in self._inside())

    @property
    def discretised(self) -> bool:
        """Whether round trips and log-determinants hold to the error of a solver's steps, whatever the type of x."""
        return any(m.discretised for m in self._inside())

    def _inside(self) -> "Iterator[Bijection]":
        return (m for m in self.modules() if m is not self and isinstance(m, Bijection))

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map data x, of shape (B, D, ...), to (z, log|det ∂z/∂x|) of shapes (B, D, ...) and (B,)."""

    @abstractmethod
    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map latent z, of shape (B, D, ...), to (x, log|det ∂x/∂z|) of shapes (B, D, ...) and (B,)."""

    @classmethod
    @abstractmethod
    def examples(cls) -> "Iterator[Example]":
        """Yield small instances with their shapes: the tests, the docs and the gallery walk them."""

    def trace(self, x: Tensor, context: Tensor | None = None) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, value) after each step on the way from data to latent; one step unless composed."""
        yield type(self).__name__, self(x, context)[0]

    def scales(self, z: Tensor) -> tuple[Tensor, ...]:
        """Return the parts of a latent, (B, D, ...), that were finished one after the other: the finest first.

        One part, the latent itself, where nothing is factored out.
        """
        return (z,)


@dataclass(frozen=True, eq=False)
class Example:
    """A small bijection and the shapes, without the batch axis, on which it can be tried."""

    bijection: Bijection
    shape: tuple[int, ...]
    context_shape: tuple[int, ...] | None = None
    domain: tuple[float, float] | None = None
    """The interval in which x must lie, or None for the whole line."""


def no_log_det(x: Tensor) -> Tensor:
    """Return the log-determinant of a map that keeps volume: zeros of shape (B,)."""
    return x.new_zeros(x.shape[0])

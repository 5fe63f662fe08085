"""Maps that only move numbers about: order and shape. Seen under them, one coupling serves every partition."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from math import prod

import torch
from torch import Tensor

from longflow.bijections.bijection import Bijection, Example, no_log_det
from longflow.errors import UsageError


class Rearrangement(Bijection):
    """A bijection that keeps volume because it only moves numbers about: its log-determinant is 0."""

    @abstractmethod
    def arrange(self, x: Tensor) -> Tensor:
        """Return x rearranged."""

    @abstractmethod
    def restore(self, z: Tensor) -> Tensor:
        """Undo `arrange`."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.arrange(x), no_log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.restore(z), no_log_det(z)


class Waypoint(Rearrangement):
    """x as it is: a place on the way, at which a hook sees what passes."""

    def arrange(self, x: Tensor) -> Tensor:
        return x

    def restore(self, z: Tensor) -> Tensor:
        return z

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(), (3,))


class Reverse(Rearrangement):
    """z_d = x_{D-1-d}: the features in reversed order."""

    def arrange(self, x: Tensor) -> Tensor:
        return x.flip(1)

    def restore(self, z: Tensor) -> Tensor:
        return z.flip(1)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(), (5,))
        yield Example(cls(), (3, 2, 2))


class Permute(Rearrangement):
    """z_d = x_{order[d]}: the features in a fixed order, saved with the model."""

    order: Tensor
    back: Tensor

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        if sorted(order) != list(range(len(order))):
            raise UsageError(f"Permute expects each of 0..{len(order) - 1} once; {list(order)} came")
        self.register_buffer("order", torch.as_tensor(order))
        self.register_buffer("back", torch.argsort(self.order))

    def arrange(self, x: Tensor) -> Tensor:
        return x.index_select(1, self.order)

    def restore(self, z: Tensor) -> Tensor:
        return z.index_select(1, self.back)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls([2, 0, 3, 1]), (4,))
        yield Example(cls([2, 0, 1]), (3, 2, 2))


class Flatten(Rearrangement):
    """An event of the given shape, seen as a vector of its prod(shape) numbers."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def extra_repr(self) -> str:
        return f"{self.shape}"

    def arrange(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], prod(self.shape))

    def restore(self, z: Tensor) -> Tensor:
        return z.reshape(z.shape[0], *self.shape)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls((2, 3, 2)), (2, 3, 2))


class Squeeze(Rearrangement):
    """Space to depth: (C, H, W) to (4C, H/2, W/2), channel 4c + 2i + j being the pixels (2y + i, 2x + j) of c."""

    def arrange(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(n, 4 * c, h // 2, w // 2)

    def restore(self, z: Tensor) -> Tensor:
        n, c, h, w = z.shape
        return z.reshape(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(), (2, 4, 2))


class Partition(Rearrangement):
    """A view in which the features of part `first` (0 or 1) come before those of the other."""

    def __init__(self, first: int = 0) -> None:
        super().__init__()
        if first not in (0, 1):
            raise UsageError(f"{type(self).__name__} expects first 0 or 1; {first} came")
        self.first = first

    def extra_repr(self) -> str:
        return f"first={self.first}"


class Interleave(Partition):
    """Every second feature, starting with `first` (0 or 1), then the others.

    Under this view a coupling's halves are the even and the odd features (NICE, section 5.1).
    """

    def arrange(self, x: Tensor) -> Tensor:
        return torch.cat((x[:, self.first :: 2], x[:, 1 - self.first :: 2]), 1)

    def restore(self, z: Tensor) -> Tensor:
        pairs = z.shape[1] // 2
        parts = z.tensor_split([(z.shape[1] + 1 - self.first) // 2], 1)
        even, odd = parts[self.first], parts[1 - self.first]
        together = torch.stack((even[:, :pairs], odd), 2).flatten(1, 2)
        return together if even.shape[1] == pairs else torch.cat((together, even[:, pairs:]), 1)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(0), (4,))
        yield Example(cls(1), (5,))
        yield Example(cls(0), (3, 2, 2))


class Halves(Partition):
    """The first half then the second (`first` = 0), or the second half then the first (`first` = 1)."""

    def arrange(self, x: Tensor) -> Tensor:
        return x.roll(-self.first * ((x.shape[1] + 1) // 2), 1)

    def restore(self, z: Tensor) -> Tensor:
        return z.roll(self.first * ((z.shape[1] + 1) // 2), 1)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(0), (4,))
        yield Example(cls(1), (5,))
        yield Example(cls(1), (3, 2, 2))


class Checkerboard(Partition):
    """The squares of one colour, then those of the other: (C, H, W) to (2C, H, W/2), for an even width.

    `first` is the parity of y + x of the squares that come first; a row's squares of one colour stay in order. A
    coupling of the two colours is a coupling of halves under this view (RealNVP, section 3.4).
    """

    def arrange(self, x: Tensor) -> Tensor:
        left, right = x.unflatten(3, (-1, 2)).unbind(4)
        odd = self._odd_rows(x)
        return torch.cat((torch.where(odd, right, left), torch.where(odd, left, right)), 1)

    def restore(self, z: Tensor) -> Tensor:
        first, second = z.chunk(2, 1)
        odd = self._odd_rows(z)
        pairs = torch.stack((torch.where(odd, second, first), torch.where(odd, first, second)), 4)
        return pairs.flatten(3)

    def _odd_rows(self, x: Tensor) -> Tensor:
        return ((torch.arange(x.shape[2], device=x.device) + self.first) % 2 == 1)[:, None]

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(0), (2, 2, 4))
        yield Example(cls(1), (1, 3, 2))

"""Combinators: bijections made of bijections. Each walks one way; the direction is the step that it is handed."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from longflow.bijections.bijection import Bijection, Example, Step
from longflow.bijections.elementwise import Affine, Learned, Logit, Scale, Shift
from longflow.bijections.memory import MEMORIES, TRUNKS, Memory, Trunk, Walk
from longflow.bijections.rearrange import Flatten, Halves, Interleave, Reverse, Squeeze
from longflow.errors import UsageError, choose
from longflow.nets.mlp import MLP


class Chain(Bijection):
    """f = f_n ∘ … ∘ f_1, the first part next to the data. The log-determinants add up. Empty: the identity.

    `memory` says what is kept for the gradient (`memory.py`); it changes neither values nor the state_dict.
    `trunk` is the narrowest type in which values and log-determinants are carried from part to part; networks compute
    in their own, and the result has the type of x. In float64 the way back of a float32 model meets the values of the
    way there, whose rounding an inverse would magnify.
    """

    def __init__(self, *parts: Bijection, memory: Memory = "full", trunk: Trunk = "float32") -> None:
        super().__init__()
        self.trunk = TRUNKS[choose("trunk", trunk, TRUNKS)]
        self.parts = nn.ModuleList(parts)
        self.exact = all(part.exact for part in parts)
        self.reversible = all(part.reversible for part in parts)
        self.memory = choose("memory", memory, MEMORIES)
        if memory == "reversible" and not (self.exact and self.reversible):
            raise UsageError(
                "reversible memory expects bijections whose inverse is exact, in training too; use 'checkpoint'"
            )
        if memory == "checkpoint" and not self.exact:
            raise UsageError(
                "checkpoints expect bijections whose inverse is exact; estimated log-determinants keep no activations"
                " anyway: use 'full'"
            )

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        parts = self._bijections()
        return self._walk(parts, parts, [part.inverse for part in parts], x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        parts = self._bijections()[::-1]
        return self._walk(parts, [part.inverse for part in parts], parts, z, context)

    def _walk(
        self, parts: list[Bijection], steps: Sequence[Step], undos: Sequence[Step], x: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        walk = Walk(steps, undos, parts)
        carried = x.to(torch.promote_types(x.dtype, self.trunk))
        y, log_det = MEMORIES[self.memory](walk, carried, context)
        return y.to(x.dtype), log_det.to(x.dtype)

    def _bijections(self) -> list[Bijection]:
        return cast(list[Bijection], list(self.parts))

    def trace(self, x: Tensor, context: Tensor | None = None) -> Iterator[tuple[str, Tensor]]:
        for part in self._bijections():
            value = x
            for name, value in part.trace(x, context):
                yield name, value
            x = value

    def scales(self, z: Tensor) -> tuple[Tensor, ...]:
        # A learned elementwise map at the end keeps every number where it is.
        moving = [part for part in self._bijections() if not isinstance(part, Learned)]
        return moving[-1].scales(z) if moving else (z,)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(), (3,))
        yield Example(cls(Coupling(Affine(), MLP(2, 4, hidden=7, depth=1)), trunk="float64"), (4,))
        yield Example(cls(Reverse(), Learned(Scale(), (4,)), Under(Interleave(), Reverse())), (4,))


class Inverse(Bijection):
    """f⁻¹ as a bijection: its forward is the inner inverse and the other way round."""

    def __init__(self, inner: Bijection) -> None:
        super().__init__()
        self.inner = inner
        self.exact, self.reversible = inner.exact, inner.reversible

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.inner.inverse(x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.inner(z, context)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(Affine()), (3,), (6,))


class Around(Bijection):
    """A bijection around an inner one, which walks both ways alike: only the inner step differs."""

    def __init__(self, inner: Bijection) -> None:
        super().__init__()
        self.inner = inner
        self.exact, self.reversible = inner.exact, inner.reversible

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._walk(self.inner, x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._walk(self.inner.inverse, z, context)

    @abstractmethod
    def _walk(self, step: Step, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Take x through this bijection, with `step` for the inner one or its inverse."""


class Under(Around):
    """view⁻¹ ∘ inner ∘ view: `inner` acting on another view of the event, which comes back in its own shape.

    A coupling of even and odd features is a coupling of halves under `Interleave`.
    """

    def __init__(self, view: Bijection, inner: Bijection) -> None:
        super().__init__(inner)
        self.view = view
        self.exact, self.reversible = view.exact and inner.exact, view.reversible and inner.reversible

    def _walk(self, step: Step, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        seen, before = self.view(x, context)
        moved, change = step(seen, context)
        y, after = self.view.inverse(moved, context)
        return y, before + change + after

    def trace(self, x: Tensor, context: Tensor | None = None) -> Iterator[tuple[str, Tensor]]:
        for name, value in self.inner.trace(self.view(x, context)[0], context):
            yield name, self.view.inverse(value, context)[0]

    def scales(self, z: Tensor) -> tuple[Tensor, ...]:
        parts = self.inner.scales(self.view(z)[0])
        return parts if len(parts) > 1 else (z,)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(Interleave(1), Learned(Affine(), (5,))), (5,))
        yield Example(cls(Flatten((2, 3, 1)), Reverse()), (2, 3, 1))
        yield Example(cls(Logit(0.1), Learned(Affine(), (3,))), (3,), domain=(0, 1))


class Coupling(Around):
    """The first half of the features sets the parameters by which the second half moves (NICE, eq. 4-8).

        z_1 = x_1,   z_2 = transform(x_2; conditioner(x_1, context))

    `conditioner` is any network of (half, context), of shapes (B, ⌊D/2⌋, ...) and the context's own, that returns
    the context of `transform`, (B, k·⌈D/2⌉, ...). Of an odd number of features the smaller half conditions, so
    that no feature stays untouched by two couplings of alternating partition.
    """

    def __init__(self, transform: Bijection, conditioner: nn.Module) -> None:
        super().__init__(transform)
        self.conditioner = conditioner

    def _walk(self, step: Step, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        first, second = x.tensor_split([x.shape[1] // 2], 1)
        moved, log_det = step(second, self.conditioner(first.to(self._own_dtype(first)), context))
        return torch.cat((first, moved), 1), log_det

    def _own_dtype(self, x: Tensor) -> torch.dtype:
        """Return the conditioner's type: a chain may carry values in a wider one."""
        return next((p.dtype for p in self.conditioner.parameters()), x.dtype)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(Shift(), MLP(2, 3, hidden=7, depth=2)), (5,))
        yield Example(cls(Affine(), MLP(2, 4, hidden=7, depth=2, context=3)), (4,), (3,))
        yield Example(Under(Halves(1), cls(Affine(), MLP(2, 6, hidden=7, depth=1))), (5,))


class Leading(Around):
    """The first `features` features go through `inner`; the others stay as they are."""

    def __init__(self, features: int, inner: Bijection) -> None:
        super().__init__(inner)
        self.features = features

    def _walk(self, step: Step, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        first, rest = x.tensor_split([self.features], 1)
        moved, log_det = step(first, context)
        return torch.cat((moved, rest), 1), log_det

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(2, Learned(Affine(), (2,))), (5,))


class Embedded(Around):
    """`inner` under a context that a network makes of the one that comes: inner(x, embedding(context)).

    A raw observation, a series or a picture, becomes the features that conditioners see; standardising a context is an
    embedding, too. The network is trained with the rest.
    """

    def __init__(self, embedding: nn.Module, inner: Bijection) -> None:
        super().__init__(inner)
        self.embedding = embedding

    def _walk(self, step: Step, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if context is None:
            raise UsageError("a bijection with an embedding expects a context; none came")
        return step(x, self.embedding(context))

    def trace(self, x: Tensor, context: Tensor | None = None) -> Iterator[tuple[str, Tensor]]:
        yield from self.inner.trace(x, None if context is None else self.embedding(context))

    def scales(self, z: Tensor) -> tuple[Tensor, ...]:
        return self.inner.scales(z)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        inner = Coupling(Affine(), MLP(2, 4, hidden=7, depth=1, context=3))
        yield Example(cls(MLP(5, 3, hidden=7, depth=1), inner), (4,), (5,))


class At(Around):
    """`inner` under one context, the same for every row: a map of x alone. A context that comes is not looked at.

    `context` is one row, (1, ...); it is no part of the state_dict.
    """

    context: Tensor

    def __init__(self, inner: Bijection, context: Tensor) -> None:
        super().__init__(inner)
        self.register_buffer("context", context, persistent=False)

    def _walk(self, step: Step, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return step(x, self._repeated(x))

    def _repeated(self, x: Tensor) -> Tensor:
        return self.context.expand(len(x), *self.context.shape[1:])

    def trace(self, x: Tensor, context: Tensor | None = None) -> Iterator[tuple[str, Tensor]]:
        yield from self.inner.trace(x, self._repeated(x))

    def scales(self, z: Tensor) -> tuple[Tensor, ...]:
        return self.inner.scales(z)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        inner = Coupling(Affine(), MLP(2, 4, hidden=7, depth=1, context=3))
        yield Example(cls(inner, torch.tensor([[0.5, -1.0, 2.0]])), (4,))


class FactorOut(Around):
    """The first half of the features goes on through `inner`; the second half is finished and waits beside it.

        z_1 = inner(x_1),   z_2 = x_2

    A latent keeps the shape of its data, so multi-scale is a chain like any other (RealNVP, section 3.6). Glow's
    conditional prior of the finished half is a `Coupling` before this.
    """

    def _walk(self, step: Step, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        going, finished = x.tensor_split([x.shape[1] // 2], 1)
        gone, log_det = step(going, context)
        return torch.cat((gone, finished), 1), log_det

    def scales(self, z: Tensor) -> tuple[Tensor, ...]:
        gone, finished = z.tensor_split([z.shape[1] // 2], 1)
        return finished, *self.inner.scales(gone)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(Learned(Affine(), (2,))), (5,))
        yield Example(Under(Squeeze(), cls(Reverse())), (1, 4, 4))

"""A distribution of levels that reads an event number after number."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from longflow.distributions.distribution import Case, Temperature
from longflow.distributions.grey import check_levels
from longflow.distributions.parametric import Parametric, given
from longflow.errors import UsageError


class Recurrent(Parametric):
    """P(x | z) = Π_i P(x_i | x_1 … x_{i-1}, z) of levels 0..L-1, by gated recurrent units (Cho et al. 2014).

    A picture is read pixel by pixel, line by line, the channels of a pixel one after the other. At each step the units
    see the level before (as a learned vector) and z, (B, context), which gives their first state too; the logits of L
    levels are linear in their state. So powerful a decoder can do without z: then q(z | x) collapses to the prior.

    `log_prob` reads all levels at once, as they are known; sampling goes number after number. A temperature multiplies
    the Gumbel noise of each step's choice.
    """

    levels: int

    def __init__(self, shape: tuple[int, ...], levels: int, *, context: int, width: int) -> None:
        super().__init__(shape)
        if context < 1 or width < 1:
            raise UsageError(f"expected a context and a width of at least 1; {context} and {width} came")
        self.levels, self.context = check_levels(levels), context
        self.embedding = nn.Embedding(levels + 1, width)
        self.start = nn.Linear(context, width)
        self.units = nn.GRU(width + context, width, batch_first=True)
        self.last = nn.Linear(width, levels)

    @property
    def context_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.context,)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check_events(x, context)
        z, levels = given(context), self._listed(x).long()
        before = torch.cat((torch.full_like(levels[:, :1], self.levels), levels[:, :-1]), 1)
        logits, _ = self._step(before, z, self.start(z).tanh())
        return logits.log_softmax(2).gather(2, levels.unsqueeze(2)).sum((1, 2))

    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        self.check_draw(n, context, temperature)
        z = given(context)
        scale = self._listed(torch.as_tensor(temperature).to(z).expand(1, *self.shape))[0]
        state, levels = self.start(z).tanh(), [torch.full((n, 1), self.levels, device=z.device)]
        for i in range(self.dims):
            logits, state = self._step(levels[-1], z, state)
            uniform = torch.rand_like(logits).clamp_min(torch.finfo(logits.dtype).tiny)
            levels.append((logits - scale[i] * torch.log(-torch.log(uniform))).argmax(2))
        return self._shaped(torch.cat(levels[1:], 1)).to(z)

    def mean(self, context: Tensor) -> Tensor:
        """Return, not the mean, but the likeliest level of each number after those before it: a draw at temperature 0.

        The mean would be over all events, of which there are too many; and it is not an event.
        """
        return self.sample(len(context), context, 0.0)

    def dtype(self, x: Tensor) -> torch.dtype:
        return self.last.weight.dtype

    def extra_repr(self) -> str:
        return f"{self.shape}, levels={self.levels}"

    def _step(self, before: Tensor, z: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, T, L) of T levels from the T before them, (B, T), and the state after them, (B, width)."""
        seen = torch.cat((self.embedding(before), z.unsqueeze(1).expand(-1, before.shape[1], -1)), 2)
        states, last = self.units(seen, state.unsqueeze(0))
        return self.last(states), last[0]

    def _listed(self, x: Tensor) -> Tensor:
        """Return events (B, C, ...) in the order of reading, (B, D)."""
        return x.movedim(1, -1).flatten(1)

    def _shaped(self, listed: Tensor) -> Tensor:
        return listed.unflatten(1, (*self.shape[1:], self.shape[0])).movedim(-1, 1)

    @classmethod
    def examples(cls) -> Iterator[Case]:
        torch.manual_seed(0)
        yield Case(cls((3,), 3, context=2, width=4), context=torch.tensor([0.7, -1.2]))
        yield Case(cls((2, 2, 1), 2, context=1, width=4), context=torch.tensor([0.7]))

"""Batches as a function of the step, so that a run can be taken up in the middle of an epoch, bit by bit the same."""

import torch
from torch import Tensor

from longflow.errors import UsageError
from longflow.seeds import derived


class Batches:
    """Random batches of rows held in memory: `batches(step)` is always the same batch.

    The rows are permuted anew each epoch by (seed, epoch); a last incomplete batch is left for other epochs to
    catch, so that shapes stay static. With `world` > 1 processes, each takes its own share of every batch.
    """

    def __init__(
        self, rows: Tensor, context: Tensor | None, batch: int, seed: int, *, rank: int = 0, world: int = 1
    ) -> None:
        self.rows, self.context, self.seed = rows, context, seed
        self.batch = min(batch, len(rows))
        if self.batch % world:
            raise UsageError(f"expected a batch that {world} processes can share equally; {self.batch} rows came")
        self.steps_per_epoch = len(rows) // self.batch
        self.rank, self.world = rank, world
        self._epoch = -1
        self._order = torch.empty(0)

    def __call__(self, step: int) -> tuple[Tensor, Tensor | None]:
        """Return (x, context) of the step, x of shape (B, *shape): levels as floating point, else of the rows' type."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = self._order_of(epoch)
        chosen = order[position * self.batch : (position + 1) * self.batch][self.rank :: self.world]
        x = self.rows[chosen]
        x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
        return x, None if self.context is None else self.context[chosen]

    def _order_of(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            key = torch.Generator().manual_seed(derived(self.seed, epoch))
            order = torch.randperm(len(self.rows), generator=key)
            self._epoch, self._order = epoch, order.to(self.rows.device)
        return self._order

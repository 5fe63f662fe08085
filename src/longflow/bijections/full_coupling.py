"""A coupling in which the features that set the parameters move, too."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from longflow.bijections.bijection import Bijection, Example
from longflow.bijections.elementwise import Affine, Elementwise
from longflow.nets.mlp import MLP


class FullCoupling(Bijection):
    """The first half of a vector's features moves by learned numbers, the second half by what the first one says.

        z_1 = transform(x_1; θ),   z_2 = transform(x_2; conditioner(x_1, context))

    (Durkan et al. 2019, eq. 9 and 10.) It is a `Coupling` after which `Learned` moves the first half, at the cost of
    one transform: forward knows all parameters at once. θ starts at zero.
    """

    def __init__(self, transform: Elementwise, conditioner: nn.Module, features: int) -> None:
        super().__init__()
        self.transform, self.conditioner = transform, conditioner
        self.exact, self.reversible = transform.exact, transform.reversible
        self.theta = nn.Parameter(torch.zeros(1, transform.parameters_per_feature * (features // 2)))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        first, second = x.tensor_split([x.shape[1] // 2], 1)
        own = self.transform.parameters_in(self.theta.expand(len(x), -1), first)
        told = self.transform.parameters_in(self._told_by(first, context), second)
        return self.transform.mapped(self.transform.ahead, x, torch.cat((own, told), 2))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        first, second = z.tensor_split([z.shape[1] // 2], 1)
        first, change = self.transform.inverse(first, self.theta)
        second, log_det = self.transform.inverse(second, self._told_by(first, context))
        return torch.cat((first, second), 1), change + log_det

    def _told_by(self, first: Tensor, context: Tensor | None) -> Tensor:
        return self.conditioner(first.to(self.theta.dtype), context)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(Affine(), MLP(2, 6, hidden=7, depth=1), 5), (5,))
        yield Example(cls(Affine(), MLP(1, 2, hidden=7, depth=1, context=3), 2), (2,), (3,))

"""A network and a distribution whose parameters it tells."""

from collections.abc import Iterator

from torch import Tensor, nn

from longflow.distributions.distribution import Case, Distribution, Temperature
from longflow.distributions.parametric import Normal, Parametric
from longflow.errors import UsageError


class Given(Distribution):
    """p(x | c) = p(x; θ = network(c)): a distribution whose context the network makes of another, c.

    `network` maps (B, *given) to the context of `distribution`, which is `Parametric` or anything that takes one, such
    as a flow conditioned on features.
    """

    def __init__(self, network: nn.Module, distribution: Distribution, given: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network
        self.inner = distribution
        self.shape = distribution.shape
        self.context_shape = tuple(given)
        self.likelihood = distribution.likelihood
        self.levels = distribution.levels
        self.reparametrised = distribution.reparametrised

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check_context(len(x), context)
        return self.inner.log_prob(x, self.network(context))

    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        self.check_context(n, context)
        return self.inner.sample(n, self.network(context), temperature)

    def sample_and_log_prob(
        self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0
    ) -> tuple[Tensor, Tensor]:
        self.check_context(n, context)
        return self.inner.sample_and_log_prob(n, self.network(context), temperature)

    def mean(self, context: Tensor) -> Tensor:
        """Return the mean of each row's distribution, (B, *shape)."""
        if not isinstance(self.inner, Parametric):
            raise UsageError(f"expected a distribution with a mean; {type(self.inner).__name__} came")
        return self.inner.mean(self.network(context))

    def at_floor(self, context: Tensor) -> Tensor:
        """Return the share of each row's deviations that are at their floor, (B,)."""
        if not isinstance(self.inner, Parametric):
            return context.new_zeros(len(context))
        return self.inner.at_floor(self.network(context))

    @classmethod
    def examples(cls) -> Iterator[Case]:
        yield Case(cls(nn.Linear(3, 4), Normal((2,)), (3,)), context=0.5 * nn.init.ones_(nn.Parameter(Tensor(3))).data)

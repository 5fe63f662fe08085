"""The variational mixture of posteriors, a prior that knows where codes lie."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from longflow.distributions import Case, Given, Noise, Normal, Temperature
from longflow.distributions.parametric import Parametric
from longflow.errors import UsageError


class VampPrior(Noise):
    """p(z) = 1/K Σ_k q(z | u_k) with learned pseudo-inputs u_k (Tomczak & Welling 2018).

    The posterior q belongs to the autoencoder, which trains it; here it is only referred to. Pseudo-inputs are of the
    shape that the posterior's network sees, in units of `scale` (for levels, the largest): they start at U[0, 1), and
    what is learned is of the order of 1 whatever the units.
    """

    def __init__(self, posterior: Given, components: int, *, scale: float = 1.0) -> None:
        super().__init__(posterior.shape)
        if components < 1:
            raise UsageError(f"VampPrior expects at least 1 component; {components} came")
        self.components = components
        inputs = posterior.context_shape or ()
        self.inputs, self.scale = nn.Parameter(torch.rand(components, *inputs)), scale
        self._owner = (posterior,)

    def _parameters_of(self) -> Tensor:
        """Return the parameters of the K posteriors, (K, ...)."""
        return self._owner[0].network(self.scale * self.inputs)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check_events(x, context)
        parameters = self._parameters_of()
        rows = x.repeat_interleave(self.components, 0)
        every = parameters.repeat(len(x), *[1] * (parameters.dim() - 1))
        log_q = self._owner[0].inner.log_prob(rows, every).unflatten(0, (len(x), self.components))
        return torch.logsumexp(log_q, 1) - math.log(self.components)

    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        self.check_draw(n, context, temperature)
        k = torch.randint(self.components, (n,), device=self.inputs.device)
        return self._owner[0].inner.sample(n, self._parameters_of()[k], temperature)

    def standardised(self, z: Tensor) -> Tensor:
        posterior = self._owner[0].inner
        moments = posterior.moments(self._parameters_of()) if isinstance(posterior, Parametric) else None
        if moments is None:
            raise UsageError("standardised latents expect a normal posterior behind a VampPrior")
        standard = (z.unsqueeze(1) - moments[0]) * (-moments[1]).exp()
        likelihoods = (-0.5 * standard.square() - moments[1]).flatten(2).sum(2)
        return standard[torch.arange(len(z)), likelihoods.argmax(1)]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "VampPrior":  # noqa: FBT001, FBT002
        self._owner[0]._apply(fn)
        return super()._apply(fn, recurse)

    @classmethod
    def examples(cls) -> Iterator[Case]:
        torch.manual_seed(0)
        yield Case(cls(Given(nn.Linear(3, 4), Normal((2,)), (3,)), 3))

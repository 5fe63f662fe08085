"""How a density on a learned manifold is trained: likelihood on it, and data near it."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, prod
from typing import ClassVar, cast

from torch import Tensor, nn

from longflow.distributions.injective import Injective
from longflow.errors import UsageError
from longflow.objectives import Turn
from longflow.units import bits_per_dim


@dataclass(frozen=True)
class ManifoldLikelihood:
    """Mean of -log p(g(g⁺(x))) + λ ‖x - g(g⁺(x))‖², of an `Injective` model (Caterini et al. 2021, section 3).

    It is divided by d · log 2: where the data are on the manifold, the loss is bits per dimension of the manifold.

    λ is in nats per squared unit of x: noise of deviation σ around the manifold would have λ = 1/(2σ²). The loss has,
    strictly, no minimum, whatever λ: data projected onto one point score without bound, and are reconstructed at a
    finite cost (Sorrenson et al. 2024 make it precise). In practice a λ large for the units of x keeps training far
    from there; a log-likelihood that rises while `distance` does not fall says that it did not.

    Attributes:
        weight: λ, the weight of the squared distance from the manifold.
    """

    weight: float = 50.0

    parts: ClassVar[tuple[str, ...]] = ("",)

    def __post_init__(self) -> None:
        if not (self.weight > 0 and isfinite(self.weight)):
            raise UsageError(f"the weight of the reconstruction is expected to be > 0; {self.weight} came")

    def __call__(self, model: nn.Module, x: Tensor, context: Tensor | None, done: float = 1.0) -> Iterator[Turn]:
        """Yield the loss once."""
        injective = cast(Injective, model)
        log_prob, squared_distance = injective.scored(x, context)
        yield "", bits_per_dim((log_prob - self.weight * squared_distance).mean(), prod(injective.latent_shape))

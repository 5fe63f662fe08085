"""A density and a classifier of one network's latent."""

from collections.abc import Iterator

from torch import Tensor, nn

from longflow.bijections import Affine, Bijection, Chain, Coupling, Learned, Squeeze
from longflow.distributions.bases import StandardNormal
from longflow.distributions.distribution import Case, Noise
from longflow.distributions.flow import Flow
from longflow.errors import UsageError
from longflow.nets import MLP
from longflow.values import values_only

HEAD_MAPS = 256
GROUPS = 32


class Hybrid(Flow):
    """p(x) by a flow, and p(y | x) of K classes by a head on its latent z = f(x) (the hybrids of Chen et al. 2019).

    The head squeezes a picture's latent as often as the flow did, convolves it (3×3, 256 maps), normalises by groups,
    rectifies, averages over space and maps linearly to logits; of a vector, it is a layer of 256 units and a linear
    one. Classes are not a context: the density knows none.
    """

    def __init__(self, bijection: Bijection, base: Noise, classes: int, *, squeezes: int = 0, padding: int = 0) -> None:
        super().__init__(bijection, base, padding=padding)
        if classes < 2:
            raise UsageError(f"a classifier expects at least 2 classes; {classes} came")
        self.predicts = classes
        self.squeezes = squeezes
        features = base.shape[0] * 4**squeezes
        picture = len(self.shape) == 3
        self.head = nn.Sequential(
            nn.Conv2d(features, HEAD_MAPS, 3, padding=1) if picture else nn.Linear(features, HEAD_MAPS),
            nn.GroupNorm(GROUPS, HEAD_MAPS),
            nn.ReLU(),
            *((nn.AdaptiveAvgPool2d(1), nn.Flatten()) if picture else ()),
            nn.Linear(HEAD_MAPS, classes),
        )

    def joint(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p(x), (B,), and the logits of p(y | x), (B, K)."""
        self.check_events(x, None)
        z, gain = self._latent(x)
        return self.base.log_prob(z) + gain, self._logits(z)

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of p(y | x), (B, K), without the cost of a log-determinant."""
        with values_only():
            return self._logits(self.bijection(self.lift(x))[0])

    def predictions(self, z: Tensor) -> dict[str, Tensor]:
        return {"classifier": self._logits(z).argmax(1)}

    def _logits(self, z: Tensor) -> Tensor:
        for _ in range(self.squeezes):
            z = Squeeze()(z)[0]
        return self.head(z)

    @classmethod
    def examples(cls) -> Iterator[Case]:
        coupling = Coupling(Affine(), MLP(1, 2, hidden=8, depth=1))
        yield Case(cls(Chain(coupling, Learned(Affine(), (2,))), StandardNormal((2,)), 3))

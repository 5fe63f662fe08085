"""Deep InfoMax: codes from which two discriminators can tell whose they are, near a prior."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longflow.errors import UsageError, choose
from longflow.families.bottleneck import Bottleneck
from longflow.families.representation import Representation, check_weight
from longflow.objectives import Turn
from longflow.units import Number


def jensen_shannon(joint: Tensor, product: Tensor) -> Tensor:
    """Return log s(T) for scores of pairs that belong together plus log(1 - s(T)) for those that do not, in nats.

    On average it is at most 2 JS(joint ‖ product) - 2 log 2, where the scores are best; see `divergence_bound`.
    """
    return F.logsigmoid(joint) + F.logsigmoid(-product)


def divergence_bound(value: float) -> float:
    """Turn a mean of `jensen_shannon` into a lower bound on the Jensen-Shannon divergence, which is at most log 2."""
    return 0.5 * value + math.log(2)


def others(x: Tensor) -> Tensor:
    """Return for each row another row of the batch: a roll, as a shuffle would leave a row where it is now and then."""
    if len(x) < 2:
        raise UsageError(f"negatives expect a batch of at least 2 rows; {len(x)} came")
    return x.roll(1, 0)


Features = Literal["fixed", "learned"]
FEATURES = ("fixed", "learned")


class InfoMax(Representation):
    """z is drawn near what an encoder says of x, and made to tell x by (Hjelm et al. 2019), with a prior (Su Jianlin).

    The encoder is `trunk`, from data to features C (B, F, ...), and `head`, from those to μ and log σ of the code.
    `whole` scores pairs of all features and a code, (B, numbers of C + latent) to (B, 1), `place` those of the features
    at one position and a code, (B, positions, F + latent) to (B, positions, 1); None for features without space.

    Whichever way features are had, either term bounds what a code says of x, as they are functions of x. Where they are
    `fixed`, the discriminators take them as they are, and the trunk learns by the code alone. Where they are `learned`
    (as published), it learns by what the discriminators make of them, too: bounds are about as high, and fewer classes
    could be read from its codes.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent: int,
        *,
        trunk: nn.Module,
        head: nn.Module,
        whole: nn.Module,
        place: nn.Module | None,
        features: Features = "fixed",
    ) -> None:
        super().__init__(shape, (latent,))
        self.features = choose("features", features, FEATURES)
        self.trunk, self.head, self.bottleneck = trunk, head, Bottleneck(latent)
        self.whole, self.place = whole, place

    def code(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.bottleneck.code.moments(self.head(self.trunk(self.inner(x))))

    def terms(self, x: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return `global` and, of pictures, `local` (`jensen_shannon`, of the mean position), and `kl` to N(0, I)."""
        features = self.trunk(self.inner(x))
        parameters = self.head(features)
        z = self.bottleneck.draw(parameters)
        shown = features.detach() if self.features == "fixed" else features
        found = {"global": jensen_shannon(*(self._whole(c, z) for c in (shown, others(shown))))}
        if self.place is not None:
            found["local"] = jensen_shannon(*(self._places(c, z) for c in (shown, others(shown)))).mean(1)
        return {**found, "kl": self.bottleneck.rate(parameters)}

    def _whole(self, features: Tensor, z: Tensor) -> Tensor:
        return self.whole(torch.cat((features.flatten(1), z), 1)).squeeze(1)

    def _places(self, features: Tensor, z: Tensor) -> Tensor:
        assert self.place is not None
        positions = features.flatten(2).transpose(1, 2)
        codes = z[:, None].expand(-1, positions.shape[1], -1)
        return self.place(torch.cat((positions, codes), 2)).squeeze(2)


@dataclass(frozen=True)
class MutualInformation:
    """Minus what discriminators tell of pairs of data and codes, plus a price of codes far from their prior, in bits.

    `model.terms(x)` must return row by row, in nats, "global" and "local" (where there is one), log s(T) of pairs that
    belong together plus log(1 - s(T)) of those that do not (Hjelm et al. 2019), and "kl", KL(q(z | x) ‖ N(0, I)).

    Attributes:
        alpha: Weight of the global term, of all of an event and its code.
        beta_local: Weight of the local term, of the mean position and the code.
        gamma: Weight of KL, summed over a code's numbers (the essay's code takes their mean: its 0.01, for 256 numbers,
            is 4e-5 here).
    """

    alpha: float = 0.5
    beta_local: float = 1.5
    gamma: float = 1e-3

    parts: ClassVar[tuple[str, ...]] = ("",)

    def __post_init__(self) -> None:
        for name in ("alpha", "beta_local", "gamma"):
            check_weight(name, getattr(self, name))
        if self.alpha == self.beta_local == 0:
            raise UsageError("expected alpha or beta_local above 0: codes that need tell nothing tell nothing")

    def __call__(self, model: nn.Module, x: Tensor, context: Tensor | None, done: float = 1.0) -> Iterator[Turn]:
        """Yield the loss once."""
        terms = model.terms(x)  # type: ignore[operator]
        yield "", self._weighed({name: value.mean() for name, value in terms.items()})

    def judged(self, terms: Mapping[str, float]) -> float:
        """Return what weights are worth by their mean terms, in bits: the loss."""
        return self._weighed(terms)

    def _weighed(self, terms: Mapping[str, Number]) -> Number:
        local = self.beta_local * terms["local"] if "local" in terms else 0.0
        return (self.gamma * terms["kl"] - self.alpha * terms["global"] - local) / math.log(2)

"""Densities of the whole line as distributions of levels, or of rows of which some numbers are whole."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from math import inf, nan

import torch
from torch import Tensor

from longflow.bijections import Affine, Bijection, Chain, Learned, Standardise, Unconstrain
from longflow.distributions.bases import StandardNormal
from longflow.distributions.distribution import Case, Likelihood, Noise, Temperature
from longflow.distributions.flow import Flow
from longflow.distributions.latent import Inside, LatentModel, averaged
from longflow.errors import UsageError

FEWEST_STEPS = 16
"""Numbers of the model's type in a bin, below which noise is not spread over it."""

MOST_LEVELS = 2**20
"""Levels of which each leaves float32 so many."""


def drawn_within(k: Tensor) -> Tensor:
    """Return k + u of whole numbers k, u uniform in [0, 1), rounded within [k, k + 1); NaN where that has few numbers.

    They are 16 or more where -2^20 <= k < 2^20 in float32 (float64: 2^49).
    """
    y, end, most = k + torch.rand_like(k), k.detach() + 1, 2 / (FEWEST_STEPS * torch.finfo(k.dtype).eps)
    # The sum of a large number and a u next to 1 would round to the next bin.
    inside = torch.where(y < end, y, torch.nextafter(end, end - 1))
    return torch.where((k >= -most) & (k < most), inside, nan)


class Binned(LatentModel):
    """A distribution under a density of real events: what is whole is a bin [k, k + 1), in which noise is drawn.

        P(x) = ∫ p(x + u) du over u in [0, 1)^D  ≥  exp E log p(x + u)   (Theis, van den Oord & Bethge 2016, eq. 4)

    `log_prob` is log p(x + u) with one draw of u from torch's generator: random, and on average a lower bound of
    log P(x), in nats. `bound` tightens it by importance samples. Whole numbers may be of any number type. k + u is
    rounded to the model's type, within its bin. A k of which the bin has less than 16 numbers of that type (|k| beyond
    2^20 in float32, 2^49 in float64) has no likelihood that could be told: it is NaN.
    """

    dequantiser = "uniform"
    reparametrised = False

    def __init__(self, density: LatentModel) -> None:
        super().__init__()
        self.density = density
        self.predicts, self.invertible = density.predicts, density.invertible
        self.shape = density.shape
        self.context_shape = density.context_shape

    @abstractmethod
    def middle(self, x: Tensor) -> Tensor:
        """Return the middles of the bins of events x, (B, *shape)."""

    @abstractmethod
    def spread(self, x: Tensor) -> Tensor:
        """Return events x, (B, *shape), anywhere in their bins."""

    @abstractmethod
    def gather(self, y: Tensor) -> Tensor:
        """Return the event in whose bins the real event y, (B, *shape), lies."""

    @property
    def likelihood(self) -> Likelihood:  # type: ignore[override]
        return "lower bound" if self.density.likelihood == "exact" else self.density.likelihood

    @property
    def base(self) -> Noise:  # type: ignore[override]
        """The base density of the model inside."""
        return self.density.base

    @property
    def estimates(self) -> bool:
        return self.density.estimates

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.density.log_prob(self.spread(x), context)

    def joint(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p(x + u | class), (B,), and the auxiliary classifier's logits, (B, K), for a base of classes."""
        return self.density.joint(self.spread(x), classes)

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of a classifier beside the density, (B, K); see `Hybrid`."""
        return self.density.logits(self.spread(x))

    def scales(self, z: Tensor) -> tuple[Tensor, ...]:
        return self.density.scales(z)

    def check_context(self, rows: int, context: Tensor | None) -> None:
        self.density.check_context(rows, context)

    def flows(self, x: Tensor, context: Tensor | None = None) -> dict[str, Inside]:
        return self.density.flows(self.spread(x), context)

    def predictions(self, z: Tensor) -> dict[str, Tensor]:
        return self.density.predictions(z)

    def preprocess(self, first: Bijection) -> None:
        self.density.preprocess(first)

    def log_weight(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.density.log_weight(self.spread(x), context)

    def parts(self, x: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        return self.density.parts(self.spread(x), context)

    def bound(self, x: Tensor, context: Tensor | None = None, samples: int = 1) -> Tensor:
        """Return log (1/K) Σ_k p(x + u_k), of shape (B,): a bound that tightens with K (Burda et al. 2016)."""
        return averaged(self, x, context, samples)

    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        return self.gather(self.density.sample(n, context, temperature))

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map events x, whole numbers taken at the middle of their bins, to latent z."""
        return self.density.encode(self.middle(x), context)

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Map latent z to events."""
        return self.gather(self.density.decode(z, context))


class Dequantised(Binned):
    """The distribution of data in levels 0..L-1, by uniform dequantisation.

    `sample` returns whole levels; the density's mass outside [0, L) goes to the nearest level.
    """

    levels: int

    def __init__(self, density: LatentModel, levels: int) -> None:
        super().__init__(density)
        if not 2 <= levels <= MOST_LEVELS:
            raise UsageError(f"dequantisation expects 2 to {MOST_LEVELS:,} levels; {levels:,} came")
        self.levels = levels

    def middle(self, x: Tensor) -> Tensor:
        return x.to(self.dtype(x)) + 0.5

    def spread(self, x: Tensor) -> Tensor:
        return drawn_within(x.to(self.dtype(x)))

    def gather(self, y: Tensor) -> Tensor:
        return y.floor().clamp(0, self.levels - 1)

    @classmethod
    def examples(cls) -> Iterator[Case]:
        flow = Flow(Chain(Standardise(0.0, 4.0), Learned(Affine(), (2,))), StandardNormal((2,)))
        yield Case(cls(flow, 4), box=(0, 4))


class MixedDequantised(Binned):
    """The distribution of vectors of which the features in `whole` are whole numbers, and the others real.

    Its likelihood is a density of the real features times a mass of the whole ones, whose noise alone is drawn.
    `low` and `high` are the least and the greatest value of each feature, infinite where there is none: to them goes
    what mass of a whole feature's density lies beyond. (Unconstrain leaves none there.) They and `whole` are no part
    of the state_dict.
    """

    low: Tensor
    high: Tensor
    whole: Tensor

    def __init__(
        self, density: LatentModel, *, low: Sequence[float], high: Sequence[float], whole: Sequence[bool]
    ) -> None:
        super().__init__(density)
        if not any(whole) or any((len(given),) != self.shape for given in (low, high, whole)):
            raise UsageError(
                f"expected an end, ±inf for none, for each of {self.shape} features, of which some are whole;"
                f" {len(low)}, {len(high)} and {len(whole)} came, {sum(whole)} whole"
            )
        self.register_buffer("whole", torch.tensor(whole), persistent=False)
        self.register_buffer("low", torch.tensor(low), persistent=False)
        self.register_buffer("high", torch.tensor(high), persistent=False)

    def middle(self, x: Tensor) -> Tensor:
        return x.to(self.dtype(x)) + 0.5 * self.whole

    def spread(self, x: Tensor) -> Tensor:
        y = x.to(self.dtype(x))
        return torch.where(self.whole, drawn_within(y), y)

    def gather(self, y: Tensor) -> Tensor:
        return torch.where(self.whole, y.floor().clamp(self.low, self.high), y)

    @classmethod
    def examples(cls) -> Iterator[Case]:
        flow = Flow(Chain(Standardise(0.0, 2.0), Learned(Affine(), (2,))), StandardNormal((2,)))
        yield Case(cls(flow, low=[-inf, -inf], high=[inf, inf], whole=[True, False]), box=(-40, 40))
        inner = Chain(Unconstrain([0.0, 0.0], [4.0, inf]), Learned(Affine(), (2,)))
        yield Case(cls(Flow(inner, StandardNormal((2,))), low=[0, 0], high=[3, inf], whole=[True, False]), box=(0, 400))

"""Mixtures of sigmoids seen through the logit: monotone maps of the line onto the line, in log space in both tails."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from longflow.bijections.bijection import Example
from longflow.bijections.elementwise import Theta
from longflow.bijections.root import Rooted
from longflow.errors import UsageError

SPREAD = 1.0
"""How far sigmoids lie apart at a context of zeros."""


def logit_of_mixture(log_weights: Tensor, y: Tensor, log_slope: Tensor, dim: int = 0) -> tuple[Tensor, Tensor]:
    """Return h = logit(Σ_k w_k σ(y_k)) and log dh/dx, given log w, Σ w = 1, and y(x) with its log dy_k/dx.

    With F = Σ w_k σ(y_k) and 1 - F = Σ w_k σ(-y_k), h = log F - log(1 - F), and
    log dh/dx = log Σ w_k σ(y_k) σ(-y_k) dy_k/dx - log F - log(1 - F). Neither F nor 1 - F is ever formed: far out h is
    as steep as the flattest y, and so as large as x is, where the logit of a rounded F ends at 16 or 37.
    """
    rising, falling = F.logsigmoid(y), F.logsigmoid(-y)
    below = (log_weights + rising).logsumexp(dim)
    above = (log_weights + falling).logsumexp(dim)
    density = (log_weights + rising + falling + log_slope).logsumexp(dim)
    return below - above, density - below - above


def spread(count: int, width: float) -> list[float]:
    """Return places from -width to width, evenly; 0 for one: equal parts of a map would stay equal in training."""
    return [width * (2 * k / (count - 1) - 1) for k in range(count)] if count > 1 else [0.0]


def narrowing(places: list[float]) -> float:
    """Return the log-scale with which logistics at these places have together the deviation of one."""
    return 0.5 * math.log1p(-3 / math.pi**2 * sum(place**2 for place in places) / len(places))


def along(numbers: Tensor, like: Tensor) -> Tensor:
    """Return numbers along the first axis of a tensor (K, B, D, ...), in its type."""
    return numbers.to(like.dtype).reshape(-1, *[1] * (like.dim() - 1))


class LogisticMixture(Rooted):
    """z = logit(Σ_k π_k σ((x - μ_k)/s_k)) · exp(a) + b (Flow++: Ho et al. 2019, section 3.2.1).

    The context is the logits of π, then the means μ, then the log-scales log s, of as many as there are `components`,
    then a, then b. The means are counted from places between -1 and 1, and the scales from where the mixture has the
    deviation of one logistic, so that a context of zeros is near the identity but no two components are alike.
    The map is onto: with x it grows as x / s, s the largest scale. The inverse is numerical (`root`).
    """

    places: Tensor

    def __init__(self, components: int = 8) -> None:
        super().__init__()
        if components < 1:
            raise UsageError(f"LogisticMixture expects components >= 1; {components} came")
        self.components = components
        self.parameters_per_feature = 3 * components + 2
        places = spread(components, SPREAD)
        self.register_buffer("places", torch.tensor(places), persistent=False)
        self.log_scale = narrowing(places)

    def extra_repr(self) -> str:
        return f"components={self.components}"

    def ahead(self, x: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        logits, means, log_scales, a, b = self._read(theta)
        y = (x - means) * (-log_scales).exp()
        h, log_slope = logit_of_mixture(logits.log_softmax(0), y, -log_scales)
        return h * a.exp() + b, log_slope + a

    def _read(self, theta: Theta) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return the logits, means and log-scales, (K, B, D, ...), and a and b, (B, D, ...)."""
        logits, means, log_scales = theta[:-2].chunk(3)
        return logits, means + along(self.places, means), log_scales + self.log_scale, theta[-2], theta[-1]

    def standardising(self, mean: Tensor, std: Tensor) -> tuple[Tensor, ...]:
        zero, log_std = torch.zeros_like(mean), std.log()
        means = [mean + (std - 1) * place for place in self.places]
        return (*[zero] * self.components, *means, *[log_std] * self.components, zero, zero)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(4), (3,), (3 * 14,))
        yield Example(cls(2), (2, 2, 1), (2 * 8, 2, 1))


class DeepSigmoid(Rooted):
    """The transformers of neural autoregressive flows (Huang, Krueger, Lacoste & Courville 2018, section 3.1).

    h⁰ = x, z = hᴸ, and each layer is

        h_i ← logit(Σ_j w_ij σ(a_j Σ_k u_jk h_k + b_j))

    with w and u of positive rows that sum to one and a > 0. `layers` 1 is the deep sigmoidal flow (DSF),
    z = logit(Σ_j w_j σ(a_j x + b_j)); more are the deep dense sigmoidal flow (DDSF), of `signals` numbers h between
    layers. Values and slopes are in log space, so that the map is onto; the inverse is numerical (`root`).

    The context is, layer by layer, a (softplus) and b, of `signals` numbers each, then the logits of u where more than
    one h comes in, then those of w, row by row. A context of zeros is near the identity.
    """

    places: Tensor
    near: Tensor

    def __init__(self, signals: int = 8, *, layers: int = 1) -> None:
        super().__init__()
        if signals < 1 or layers < 1:
            raise UsageError(f"DeepSigmoid expects signals >= 1 and layers >= 1; {signals} and {layers} came")
        self.signals, self.layers = signals, layers
        places = spread(signals, SPREAD)
        self.register_buffer("places", torch.tensor(places), persistent=False)
        self.register_buffer("near", -4 * (self.places[:, None] - self.places).square(), persistent=False)
        self.steepness = math.log(math.expm1(math.exp(-narrowing(places))))
        inward = [1] + [signals] * (layers - 1)
        self.widths = list(zip(inward, [*inward[1:], 1], strict=True))
        self.sizes = [
            size for into, out in self.widths for size in (signals, signals, (into > 1) * signals * into, out * signals)
        ]
        self.parameters_per_feature = sum(self.sizes)

    def extra_repr(self) -> str:
        return f"signals={self.signals}, layers={self.layers}"

    def ahead(self, x: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        parts = iter(theta.split(self.sizes))
        h, log_slope = x[None], torch.zeros_like(x)[None]
        for into, out in self.widths:
            h, log_slope = self._layer(h, log_slope, [next(parts) for _ in range(4)], into, out)
        return h[0], log_slope[0]

    def _layer(self, h: Tensor, log_slope: Tensor, parts: list[Tensor], into: int, out: int) -> tuple[Tensor, Tensor]:
        a = F.softplus(parts[0] + self.steepness)
        b = parts[1] - along(self.places, h)
        if into > 1:
            log_u = self._rows(parts[2], self.signals)
            h, log_slope = (log_u.exp() * h).sum(1), (log_u + log_slope).logsumexp(1)
        y, log_slope = a * h + b, a.log() + log_slope
        return logit_of_mixture(self._rows(parts[3], out), y, log_slope, 1)

    def _rows(self, logits: Tensor, rows: int) -> Tensor:
        """Return the logarithms of a matrix of so many rows, (rows, columns, B, D, ...), each of which sums to one."""
        near = self.near if rows > 1 else torch.zeros_like(self.near[:1])
        table = logits.unflatten(0, near.shape)
        return (table + near.to(table.dtype).reshape(*near.shape, *[1] * (logits.dim() - 1))).log_softmax(1)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(4), (3,), (3 * 12,))
        yield Example(cls(3, layers=2), (1, 2, 2), (33, 2, 2))

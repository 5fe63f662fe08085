"""A density and a classifier of one network's latent."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from longflow.bijections import Affine, Bijection, Chain, Coupling, Learned, Squeeze, Waypoint
from longflow.distributions.bases import StandardNormal
from longflow.distributions.distribution import Case, Noise
from longflow.distributions.flow import Flow
from longflow.errors import UsageError, choose
from longflow.nets import MLP, BatchNorm2d, ChannelNorm
from longflow.values import log_dets_wanted, values_only

Head = Literal["groups", "batch", "scales"]
HEAD_MAPS = 256
GROUPS = 32


class Hybrid(Flow):
    """p(x) by a flow, and p(y | x) of K classes by a head on its latent z = f(x) (the hybrids of Chen et al. 2019).

    Heads see a picture squeezed as often as the flow squeezes it, rectify, average over space, and end in a linear map
    to logits. What they rectify is

    - `groups`: a 3×3 convolution of z to 256 maps, normalised by groups;
    - `batch`: z itself, normalised by batches (the i-ResNet of Behrmann et al. 2019);
    - `scales`: a 3×3 convolution to 256 maps after each scale, normalised by learned scales (ActNorm); the logits are
      of all scales' means (Chen et al. 2019). The last scale ends in z, each other one in a `Waypoint` of the
      bijection, which squeezes once more from there: that is what the convolution sees.

    For a vector, convolutions are linear maps. Classes are not a context: the density knows none.
    """

    def __init__(
        self,
        bijection: Bijection,
        base: Noise,
        classes: int,
        *,
        head: Head = "groups",
        squeezes: int = 0,
        padding: int = 0,
    ) -> None:
        super().__init__(bijection, base, padding=padding)
        if classes < 2:
            raise UsageError(f"a classifier expects at least 2 classes; {classes} came")
        self.predicts = classes
        choose("head", head, BEGINNINGS)
        self.squeezes = squeezes
        stops = len(_waypoints(bijection)) if head == "scales" else 0
        features = [base.shape[0] * 4**count for count in (*range(squeezes - stops + 1, squeezes + 1), squeezes)]
        picture = len(self.shape) == 3
        parts = [BEGINNINGS[head](count, picture=picture) for count in features]
        alone = head != "scales"
        self.branches = nn.ModuleList([nn.Identity()] if alone else [nn.Sequential(*part) for part in parts])
        wide = features[0] if head == "batch" else HEAD_MAPS * len(features)
        self.head = nn.Sequential(*(parts[0] if alone else []), nn.Linear(wide, classes))

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check_events(x, context)
        if not log_dets_wanted():  # the head's layers, too, take their numbers from data, and see what `logits` sees
            self.logits(x)
        return super().log_prob(x, context)

    def joint(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p(x), (B,), and the logits of p(y | x), (B, K)."""
        self.check_events(x, None)
        with self._passing() as stops:
            z, gain = self._latent(x)
        return self.base.log_prob(z) + gain, self._logits(z, stops)

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of p(y | x), (B, K), without the cost of a log-determinant."""
        with values_only(), self._passing() as stops:
            z = self.bijection(self.lift(x))[0]
        return self._logits(z, stops)

    def predictions(self, z: Tensor) -> dict[str, Tensor]:
        seen = self._logits(z, []) if len(self.branches) == 1 else self.logits(self.decode(z))
        return {"classifier": seen.argmax(1)}

    @contextmanager
    def _passing(self) -> Iterator[list[Tensor]]:
        """Yield a list, to which forward passes within append what passes the waypoints that the head sees."""
        found: list[Tensor] = []
        stops = _waypoints(self.bijection) if len(self.branches) > 1 else []
        hooks = [stop.register_forward_hook(lambda stop, given, out: found.append(out[0])) for stop in stops]
        try:
            yield found
        finally:
            for hook in hooks:
                hook.remove()

    def _logits(self, z: Tensor, stops: Sequence[Tensor]) -> Tensor:
        """Return logits of the latent, in the shape of events, and of what passed the waypoints, in that of scales."""
        for _ in range(self.squeezes):
            z = Squeeze()(z)[0]
        ends = [*(Squeeze()(stop)[0] for stop in stops), z]
        means = [branch(end) for branch, end in zip(self.branches, ends, strict=True)]
        return self.head(torch.cat(means, 1))

    @classmethod
    def examples(cls) -> Iterator[Case]:
        for head in BEGINNINGS:
            coupling = Coupling(Affine(), MLP(1, 2, hidden=8, depth=1))
            yield Case(cls(Chain(coupling, Learned(Affine(), (2,))), StandardNormal((2,)), 3, head=head), (-16, 16))


def _waypoints(bijection: Bijection) -> list[Waypoint]:
    return [m for m in bijection.modules() if isinstance(m, Waypoint)]


def _by_groups(features: int, *, picture: bool) -> list[nn.Module]:
    linear = nn.Conv2d(features, HEAD_MAPS, 3, padding=1) if picture else nn.Linear(features, HEAD_MAPS)
    return [linear, nn.GroupNorm(GROUPS, HEAD_MAPS), nn.ReLU(), *(_mean() if picture else [])]


def _by_batches(features: int, *, picture: bool) -> list[nn.Module]:
    return [*_view(features, picture=picture), BatchNorm2d(features), nn.ReLU(), *_mean()]


def _of_a_scale(features: int, *, picture: bool) -> list[nn.Module]:
    side = 3 if picture else 1
    convolution = nn.Conv2d(features, HEAD_MAPS, side, padding=side // 2)
    return [*_view(features, picture=picture), convolution, ChannelNorm(HEAD_MAPS), nn.ReLU(), *_mean()]


def _view(features: int, *, picture: bool) -> list[nn.Module]:
    """Return what makes maps of one place of a vector; nothing for a picture."""
    return [] if picture else [nn.Unflatten(1, (features, 1, 1))]


def _mean() -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]


BEGINNINGS: dict[Head, Callable[..., list[nn.Module]]] = {
    "groups": _by_groups,
    "batch": _by_batches,
    "scales": _of_a_scale,
}
"""The layers of each head before its linear map, of so many features."""

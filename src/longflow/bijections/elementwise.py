"""Elementwise maps. Their parameters are their context, so a coupling, a learned layer or an encoder can feed them."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longflow.adaptive import Adaptive, moments
from longflow.bijections.bijection import Bijection, Example
from longflow.bijections.bounds import HalfToOne, ScaledTanh, SigmoidPlusTwo, SoftClip
from longflow.errors import UsageError

Theta = Tensor
"""The parameters, (k, B, D, ...): `s, t = theta` unpacks them. A view of the context (B, k·D, ...)."""

Map = Callable[[Tensor, Theta], tuple[Tensor, Tensor]]


class Elementwise(Bijection):
    """z_d = f(x_d; θ_d), with θ_d the context's numbers for the feature d.

    The context has `parameters_per_feature` times as many features as x, parameter by parameter (all first ones, then
    all second ones), the same space as x or ones, and the same batch as x or one.
    A leaf implements `ahead` and `back`, which return the value and the log-slope, of shapes that broadcast to x. They
    compute in the type of x where that is the wider one: exp(s) · exp(-s) is 1 to the rounding of its type only.
    """

    parameters_per_feature: int

    @abstractmethod
    def ahead(self, x: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        """Return z and log|dz/dx|, elementwise."""

    @abstractmethod
    def back(self, z: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        """Return x and log|dx/dz|, elementwise."""

    def standardising(self, mean: Tensor, std: Tensor) -> tuple[Tensor, ...]:
        """Return the parameters that bring features of that mean and deviation nearest to 0 and 1."""
        raise UsageError(f"{type(self).__name__} has no parameters that data could set")

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.mapped(self.ahead, x, self.parameters_in(context, x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.mapped(self.back, z, self.parameters_in(context, z))

    @staticmethod
    def mapped(step: Map, x: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        """Return what `step`, which is `ahead` or `back`, makes of x, and its log-determinant, (B,)."""
        y, log_slope = step(x, theta.to(torch.promote_types(theta.dtype, x.dtype)))
        return y, log_slope.expand_as(x).flatten(1).sum(1)

    def parameters_in(self, context: Tensor | None, x: Tensor) -> Theta:
        """Return θ, a view of the context; raise UsageError unless it has what each feature of x expects."""
        features = x.shape[1]
        wanted = self.parameters_per_feature * features
        if wanted == 0:
            return x.new_empty(0)
        if context is None or context.shape[1] != wanted:
            came = "none" if context is None else f"{context.shape[1]}"
            raise UsageError(
                f"{type(self).__name__} of {features} features expects a context of {wanted} features"
                f" (its parameters); {came} came"
            )
        return context.unflatten(1, (self.parameters_per_feature, features)).movedim(1, 0)


class Shift(Elementwise):
    """Additive map z = x + t (NICE: Dinh, Krueger & Bengio 2014, eq. 9). The context is t."""

    parameters_per_feature = 1

    def ahead(self, x: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        (t,) = theta
        return x + t, x.new_zeros(())

    def back(self, z: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        (t,) = theta
        return z - t, z.new_zeros(())

    def standardising(self, mean: Tensor, std: Tensor) -> tuple[Tensor, ...]:
        return (-mean,)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(), (3,), (3,))
        yield Example(cls(), (2, 4, 3), (2, 1, 1))


class Scale(Elementwise):
    """z = x · exp(s) (NICE, section 3.3). The context is the log-scale s; log|dz/dx| = s."""

    parameters_per_feature = 1

    def ahead(self, x: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        (s,) = theta
        return x * s.exp(), s

    def back(self, z: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        (s,) = theta
        return z * (-s).exp(), -s

    def standardising(self, mean: Tensor, std: Tensor) -> tuple[Tensor, ...]:
        return (-std.log(),)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(), (3,), (3,))


class Affine(Elementwise):
    """z = x · exp(b(s)) + t (RealNVP: Dinh, Sohl-Dickstein & Bengio 2017, eq. 7). The context is s, then t.

    `bound` is b, an elementwise module that keeps the scale in its range (`bounds.py`); by default the identity.
    """

    parameters_per_feature = 2

    def __init__(self, bound: nn.Module | None = None) -> None:
        super().__init__()
        self.bound = nn.Identity() if bound is None else bound

    def ahead(self, x: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        s, t = theta
        log_scale = self.bound(s)
        return x * log_scale.exp() + t, log_scale

    def back(self, z: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        s, t = theta
        log_scale = self.bound(s)
        return (z - t) * (-log_scale).exp(), -log_scale

    def standardising(self, mean: Tensor, std: Tensor) -> tuple[Tensor, ...]:
        if not isinstance(self.bound, nn.Identity):
            return super().standardising(mean, std)
        return (-std.log(), -mean / std)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(), (3,), (6,))
        yield Example(cls(), (2, 4, 3), (4, 4, 3))
        yield Example(cls(SigmoidPlusTwo()), (3,), (6,))
        yield Example(cls(ScaledTanh()), (3,), (6,))
        yield Example(cls(HalfToOne()), (2, 2, 2), (4, 2, 2))
        yield Example(cls(SoftClip(0.5)), (3,), (6,))


class Logit(Elementwise):
    """z = logit(α + (1 - 2α) x) for x in [0, 1] (RealNVP, section 4.1; its code's form of the formula).

    log|dz/dx| = softplus(z) + softplus(-z) + log(1 - 2α). α > 0 keeps the ends of the interval finite; the
    inverse of a large |z| then lies up to α / (1 - 2α) outside [0, 1].
    """

    parameters_per_feature = 0

    def __init__(self, alpha: float = 0.05) -> None:
        super().__init__()
        if not 0 <= alpha < 0.5:
            raise UsageError(f"Logit expects 0 <= alpha < 0.5; {alpha} came")
        self.alpha = alpha

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"

    def ahead(self, x: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        z = torch.logit(self.alpha + (1 - 2 * self.alpha) * x)
        return z, self._log_slope(z)

    def back(self, z: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        return (torch.sigmoid(z) - self.alpha) / (1 - 2 * self.alpha), -self._log_slope(z)

    def _log_slope(self, z: Tensor) -> Tensor:
        return F.softplus(z) + F.softplus(-z) + math.log(1 - 2 * self.alpha)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(), (5,), domain=(0, 1))
        yield Example(cls(0.0), (2, 2, 2), domain=(0.01, 0.99))


class Standardise(Elementwise):
    """z = (x - loc) / scale with fixed numbers: the units of the data, not something to learn.

    `loc` and `scale` are broadcast over an event: a number for all, or one a feature as (D, 1, ...).
    They are kept as buffers, hence saved with the model.
    """

    parameters_per_feature = 0
    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor | float, scale: Tensor | float) -> None:
        super().__init__()
        self.register_buffer("loc", torch.as_tensor(loc, dtype=torch.get_default_dtype()).clone())
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.get_default_dtype()).clone())
        if not bool((self.scale > 0).all()):
            raise UsageError("Standardise expects positive scales; a feature that never varies has none")

    def ahead(self, x: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        return (x - self.loc) / self.scale, -self.scale.log()

    def back(self, z: Tensor, theta: Theta) -> tuple[Tensor, Tensor]:
        return z * self.scale + self.loc, self.scale.log()

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(0.5, 17.0), (1, 3, 2))
        yield Example(cls(torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.5])), (2,))


class Learned(Adaptive, Bijection):
    """An elementwise map whose parameters are learned numbers, the same for every event.

    `shape` is the shape of the parameters without the batch axis: (D,) for a vector, (C, 1, 1) for a number a
    channel. With `Scale` this is NICE's diagonal layer, with `Affine` what an ActNorm learns.
    Parameters start at zero, hence `Shift`, `Scale` and `Affine` at the identity; `adapt` sets them from data, to
    features of the standard deviation `deviation`.
    """

    def __init__(self, inner: Elementwise, shape: tuple[int, ...], *, deviation: float = 1.0) -> None:
        super().__init__()
        self.inner = inner
        self.deviation = deviation
        self.theta = nn.Parameter(torch.zeros(1, inner.parameters_per_feature * shape[0], *shape[1:]))

    def adapt(self, x: Tensor) -> None:
        mean, std = moments(x, self.theta.shape)
        parameters = self.theta.chunk(self.inner.parameters_per_feature, 1)
        for parameter, value in zip(parameters, self.inner.standardising(mean, std / self.deviation), strict=True):
            parameter.copy_(value)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.inner(x, self.theta)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.inner.inverse(z, self.theta)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield Example(cls(Scale(), (4,)), (4,))
        yield Example(cls(Affine(), (2, 1, 1)), (2, 3, 3))

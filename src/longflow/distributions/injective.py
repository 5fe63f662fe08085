"""A density on a manifold of d dimensions in a space of D > d numbers, learned together with it."""

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

from longflow.bijections import Bijection, Chain
from longflow.distributions.distribution import Case, Likelihood, Noise, Temperature, total
from longflow.distributions.flow import Flow
from longflow.distributions.latent import Inside, LatentModel
from longflow.distributions.stretch import Stretch, exact
from longflow.errors import UsageError


class Injective(LatentModel):
    """x = g(u) = f⁻¹(u, 0): a bijection f of D numbers, noughts in all but d of its latent, and a flow p of those d.

        log p(x) = log p(u) - log √det JᵀJ,   u = g⁺(x) = the first d numbers of f(x),   J = ∂g/∂u

    (Rectangular flows: Caterini, Loaiza-Ganem, Pleiss & Cunningham 2021; p's own latent z is theirs, and p's bijection
    their h.) Two warnings:

    - `log_prob` is a log-density with respect to the manifold's own volume of d dimensions (length of a curve, area of
      a surface), in nats, in units of x to the power -d. It is comparable neither with a density on the D-dimensional
      space nor with one on a manifold of other dimension; between models of equal d, only where both manifolds hold
      the data. `likelihood` therefore says "none".
    - Any x is scored at its projection g(g⁺(x)). What is off the manifold, however far, can score high: look at
      `distance` beside. g⁺ is a left inverse of g, not the nearest point.

    A manifold here is the image of one chart, all of R^d. A closed one (a circle, a sphere) can be approached only with
    a cut in it, near which points are projected on the wrong side.

    The log-volume is exact in evaluation mode; in training mode it is what `training` makes of it: exact, too, or
    `Hutchinson`'s estimate, both in value and gradient.

    Shapes: events (D, ...), latents those of p, (d,). `embedding` is f: it maps events to vectors of D numbers (a
    `Flatten` first makes vectors of pictures) and has an exact inverse, through which forward mode passes. The context
    is p's: the manifold is the same for all.
    """

    likelihood: Likelihood = "none"
    invertible = False

    def __init__(
        self, embedding: Bijection, density: Flow, shape: tuple[int, ...], *, training: Stretch = exact
    ) -> None:
        super().__init__()
        if len(density.shape) != 1 or density.padding or not prod(density.shape) < prod(shape):
            came = f"one of shape {density.shape}, padding {density.padding}"
            raise UsageError(f"expected a flow of vectors of less than {prod(shape)} numbers; {came} came")
        kept = {m.memory for m in embedding.modules() if isinstance(m, Chain)} - {"full"}
        if not embedding.exact or kept:
            came = f"memory {', '.join(kept)}" if kept else "an inverse by iteration"
            raise UsageError(f"an embedding expects an exact inverse that forward mode passes; {came} came")
        self.embedding = embedding
        self.chart = density
        self.training_stretch = training
        self.shape = tuple(shape)
        self.context_shape = density.context_shape

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the log-density on the manifold at the projection of each row of x, (B,), in nats; see the class."""
        return self.scored(x, context)[0]

    def scored(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return `log_prob` and ‖x - g(g⁺(x))‖², the squared `distance`, both (B,): together they cost one pass."""
        self.check_events(x, context)
        u = self._coordinates(x)
        projected, log_volume = self._stretched(u)
        return self.chart.log_prob(u, context) - log_volume, total((x - projected).square())

    def log_volume(self, u: Tensor) -> Tensor:
        """Return log √det JᵀJ at coordinates u, (B, d), exactly: how g stretches volume there, (B,), in nats."""
        self.check_events(u, None, self.chart.shape)
        return exact(self._embed, u)[1]

    def project(self, x: Tensor) -> Tensor:
        """Return g(g⁺(x)), the points of the manifold at which events x are scored, of the shape of x."""
        self.check_events(x, None)
        return self._embed(self._coordinates(x))

    def distance(self, x: Tensor) -> Tensor:
        """Return ‖x - g(g⁺(x))‖, (B,), in the units of x: what the manifold cannot reconstruct."""
        return total((x - self.project(x)).square()).sqrt()

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data x, (B, *shape), to latent z, (B, d); x off the manifold as its projection."""
        self.check_events(x, context)
        return self.chart.encode(self._coordinates(x), context)

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Map latent z, (B, d), to points of the manifold, (B, *shape)."""
        return self._embed(self.chart.decode(z, context))

    def sample(self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0) -> Tensor:
        return self._embed(self.chart.sample(n, context, temperature))

    def sample_and_log_prob(
        self, n: int, context: Tensor | None = None, temperature: Temperature = 1.0
    ) -> tuple[Tensor, Tensor]:
        u, log_prob = self.chart.sample_and_log_prob(n, context, temperature)
        x, log_volume = self._stretched(u)
        return x, log_prob - log_volume

    def parts(self, x: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the distance of each row from the manifold, (B,): in units of x, all else being in nats."""
        return {"distance": self.distance(x)}

    def flows(self, x: Tensor, context: Tensor | None = None) -> dict[str, Inside]:
        """Return p, the "chart", at the coordinates of x, those off the manifold as their projection."""
        self.check_events(x, context)
        return {"chart": (self.chart, self._coordinates(x), context)}

    @property
    def random(self) -> bool:
        return self.chart.random

    @property
    def density(self) -> "Injective":  # type: ignore[override]
        return self

    @property
    def base(self) -> Noise:  # type: ignore[override]
        """The base density of the flow of the coordinates."""
        return self.chart.base

    def preprocess(self, first: Bijection) -> None:
        """Put a bijection of the data before all others, in place; volume is from then on measured in its units."""
        self.embedding = Chain(first, self.embedding)

    def check_context(self, rows: int, context: Tensor | None) -> None:
        self.chart.check_context(rows, context)

    def _coordinates(self, x: Tensor) -> Tensor:
        return self.embedding(x)[0][:, : self.chart.dims]

    def _embed(self, u: Tensor) -> Tensor:
        return self.embedding.inverse(torch.cat((u, u.new_zeros(len(u), self.dims - u.shape[1])), 1))[0]

    def _stretched(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return (self.training_stretch if self.training else exact)(self._embed, u)

    @classmethod
    def examples(cls) -> Iterator[Case]:
        """Yield nothing: the shared suite integrates over the whole space, in which a manifold has no volume."""
        yield from ()

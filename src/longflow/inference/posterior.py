"""Neural posterior estimation: p(θ | x) of a simulator, learned from its own draws."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions.constraints import Constraint

from longflow.adaptive import ADAPT_ROWS, adapt
from longflow.bijections import Bijection, Embedded, Standardise
from longflow.distributions import Flow
from longflow.errors import UsageError
from longflow.inference.checks import all_rows, finite_rows
from longflow.inference.pairs import fit_pairs, log_probs
from longflow.models import build
from longflow.nets import Standardiser
from longflow.seeds import fixed_draws
from longflow.training import Recipe
from longflow.training.early import Held

SIMULATIONS = Recipe(batch=128, lr=1e-3, schedule="constant", warmup=0, clip=5.0, ema=0.99)
LEAST_DRAWN, MOST_DRAWN = 100, 100_000
FEWEST_ACCEPTED = 1e-4
"""The acceptance below which sampling stops: the flow has its mass outside the support."""


@dataclass(frozen=True, eq=False)
class Sampled:
    """Parameters θ, (n, d), drawn within the support, and the share of all draws that lay in it."""

    samples: Tensor
    acceptance: float


@dataclass(frozen=True, eq=False)
class Posterior:
    """q(θ | x), a flow under a context, cut off at the support of the prior.

    Attributes:
        flow: The conditional density of θ, in its own units; contexts are raw observations x. It knows no support.
        held: Log-likelihoods of training and held-out parameters after each epoch, in nats.
        support: Where the prior has mass; None for the whole space.
    """

    flow: Flow
    held: Held
    support: Constraint | None = None

    def sample(self, n: int, observation: Tensor) -> Sampled:
        """Draw n times from q(θ | x) within the support, by rejection; `observation` is one x, without batch axis.

        Raises UsageError for an observation of another shape, and where (nearly) all draws are rejected.
        """
        if tuple(observation.shape) != self.flow.context_shape:
            raise UsageError(
                f"expected one observation of shape {self.flow.context_shape}; {tuple(observation.shape)} came"
            )
        kept, drawn, found = [self._draw(0, observation)], 0, 0
        while found < n:
            size = n if not found else int(1.1 * (n - found) * drawn / found) + 10
            theta = self._draw(min(max(size, LEAST_DRAWN), MOST_DRAWN), observation)
            kept.append(theta[inside(self.support, theta)])
            drawn, found = drawn + len(theta), found + len(kept[-1])
            if drawn > 10 / FEWEST_ACCEPTED and found < FEWEST_ACCEPTED * drawn:
                raise UsageError(
                    f"of {drawn} draws {found} lie in the prior's support: the flow has its mass elsewhere"
                )
        return Sampled(torch.cat(kept)[:n], found / drawn if drawn else 1.0)

    def _draw(self, n: int, observation: Tensor) -> Tensor:
        with torch.no_grad():
            return self.flow.sample(n, observation.expand(n, *observation.shape))


def inside(support: Constraint | None, theta: Tensor) -> Tensor:
    """Return which rows of θ, (B, d), lie in the support, (B,)."""
    if support is None:
        return torch.ones(len(theta), dtype=torch.bool, device=theta.device)
    return support.check(theta).reshape(len(theta), -1).all(1)


def fit_posterior(
    theta: Tensor,
    x: Tensor,
    model: str = "nsf",
    *,
    options: Mapping[str, Any] | None = None,
    embedding: nn.Module | None = None,
    support: Constraint | None = None,
    unconstrained: Bijection | None = None,
    validation: float = 0.1,
    patience: int = 20,
    epochs: int = 1000,
    recipe: Recipe = SIMULATIONS,
    seed: int = 0,
) -> Posterior:
    """Fit p(θ | x) to N draws of prior and simulator by maximum likelihood of a conditional flow (NPE).

    (Papamakarios & Murray 2016, with one round; Greenberg, Nonnenmacher & Macke 2019, section 2.) θ and x are brought
    to mean 0 and deviation 1 inside, feature by feature (channel by channel), by the moments of the training rows.
    Batch statistics are taken of training rows, before each validation.

    Raises UsageError for rows that the flow has no finite density of, naming the first, and TrainingDivergedError where
    a loss is not finite or no epoch gave the held-out rows a finite density.

    Args:
        theta: Parameters, (N, d).
        x: Observations, (N, k), or of more axes under an embedding.
        model: A name of the catalogue that takes a context.
        options: The model's own options.
        embedding: A network from standardised observations to features, (B, k'), trained with the rest.
        support: Where the prior has mass, a constraint of torch.distributions (`prior.support`): draws outside are
            rejected.
        unconstrained: A bijection from the support to the whole space, put before all else: then nothing is rejected.
        validation: Share of the rows that is held out.
        patience: Epochs without a better held-out likelihood after which training ends.
        epochs: The most epochs.
        recipe: How to train.
        seed: Of weights, held-out rows and batches.
    """
    theta, x = _checked(theta, x, support, unconstrained, validation, patience, epochs)
    order = torch.randperm(len(theta), generator=torch.Generator().manual_seed(seed))
    out, rest = order.tensor_split([held_out(len(theta), validation)])
    with fixed_draws(seed):
        flow = conditional(theta[rest], x[rest], model, dict(options or {}), embedding, unconstrained)
        finite_rows("log-densities before training", log_probs(flow, theta, x))
        adapt(flow, theta[rest[:ADAPT_ROWS]], x[rest[:ADAPT_ROWS]])
        rows, held = (theta[rest], x[rest]), (theta[out], x[out])
        found = fit_pairs(flow, rows, held, recipe, epochs=epochs, patience=patience, seed=seed)
    return Posterior(flow, found, support)


def held_out(rows: int, share: float) -> int:
    """Return how many rows are held out."""
    return max(1, round(share * rows))


def conditional(
    theta: Tensor,
    x: Tensor,
    model: str,
    options: dict[str, Any],
    embedding: nn.Module | None,
    unconstrained: Bijection | None,
) -> Flow:
    """Return an untrained flow of θ given raw x, with the standardisation of both."""
    seen = nn.Sequential(_units(x), embedding or nn.Identity()).to(x.dtype)
    with torch.no_grad():
        features = seen(x[:2])
    if features.dim() != 2:
        raise UsageError(f"expected an embedding's features of shape (B, k); {tuple(features.shape)} came")
    inner = build(model, tuple(theta.shape[1:]), context=features.shape[1], **options)
    if not isinstance(inner, Flow):
        raise UsageError(f"a posterior expects a model that is a flow under a context; '{model}' came")
    flow = Flow(Embedded(seen, inner.bijection), inner.base, tuple(x.shape[1:]))
    free = theta if unconstrained is None else unconstrained(theta)[0].detach()
    units = _units(free)
    flow.preprocess(Standardise(units.loc, units.scale))
    if unconstrained is not None:
        flow.preprocess(unconstrained)
    return flow.to(theta.dtype)


def _units(rows: Tensor) -> Standardiser:
    units = Standardiser(tuple(rows.shape[1:]))
    units.fit(rows)
    return units


def _checked(
    theta: Tensor,
    x: Tensor,
    support: Constraint | None,
    unconstrained: Bijection | None,
    validation: float,
    patience: int,
    epochs: int,
) -> tuple[Tensor, Tensor]:
    if theta.dim() != 2 or x.dim() < 2 or len(theta) != len(x):
        came = f"{tuple(theta.shape)} and {tuple(x.shape)}"
        raise UsageError(f"expected parameters (N, d) and as many observations (N, …); {came} came")
    if len(theta) < 10:
        raise UsageError(f"expected at least 10 simulations; {len(theta)} came")
    if not 0 < validation < 1 or patience < 1 or epochs < 1:
        raise UsageError(
            f"expected 0 < validation < 1, patience >= 1 and epochs >= 1; {validation}, {patience} and {epochs} came"
        )
    if len(theta) - held_out(len(theta), validation) < 2:
        raise UsageError(f"expected a validation share that leaves 2 of {len(theta)} rows to train; {validation} came")
    given, theta, x = theta, theta.to(torch.get_default_dtype()), x.to(torch.get_default_dtype())
    finite_rows("parameters", theta)
    finite_rows("observations", x)
    all_rows(inside(support, given), "parameters in the support")
    if unconstrained is not None:
        with torch.no_grad():
            free, log_det = unconstrained(theta)
        finite_rows("parameters under `unconstrained`", torch.cat((free, log_det[:, None]), 1))
    return theta, x

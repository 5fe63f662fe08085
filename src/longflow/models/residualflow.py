"""Residual flows (Chen, Behrmann, Duvenaud & Jacobsen, NeurIPS 2019)."""

from math import prod
from typing import Any, Literal

from longflow.bijections import Bijection, Chain, Flatten, Squeeze, Under, Waypoint
from longflow.bijections.estimated import EXACT_DIMS
from longflow.bijections.series import Roulette, Series
from longflow.distributions import Flow, Head, Hybrid, StandardNormal
from longflow.distributions.hybrid import BEGINNINGS
from longflow.errors import UsageError, choose
from longflow.models.blocks import Blocks, norm_of, squeezes_between
from longflow.models.checks import at_least, vector_or_picture

PRESETS: dict[str, dict[str, Any]] = {
    "cifar10": {"scales": 3, "blocks": 16, "width": 512, "linear_blocks": 4},
    "mnist": {"scales": 3, "blocks": 16, "width": 512, "linear_blocks": 4},
    "imagenet32": {"scales": 3, "blocks": 32, "width": 512, "linear_blocks": 4},
    "toy": {"blocks": 100, "width": 128, "depth": 4},
    "digits": {"scales": 2, "blocks": 6, "width": 64, "linear_blocks": 2},
}


def residualflow(
    shape: tuple[int, ...],
    *,
    scales: int | None = None,
    blocks: int = 8,
    width: int = 64,
    depth: int = 2,
    coefficient: float = 0.98,
    activation: str = "lipswish",
    growth: int = 0,
    border: Literal["zeros", "periodic"] = "zeros",
    linear_blocks: int = 0,
    linear_width: int = 128,
    terms: int = 2,
    roulette: Roulette = "poisson",
    rate: float = 2.0,
    probe: Literal["rademacher", "gaussian"] = "gaussian",
    probes: int = 1,
    evaluation_terms: int = 20,
    exact_dims: int = EXACT_DIMS,
    classes: int = 0,
    head: Head = "scales",
    context: int = 0,
) -> Flow:
    """Residual blocks trained by an unbiased log-determinant, with LipSwish, squeezed between scales.

    A learned scale (ActNorm) stands before and after each block; the first scale is not squeezed, and no feature is
    finished early (the paper does so for pictures of more than 32×32 only). A picture may end in fully connected
    blocks, which see all of it. For vectors there is one scale, of fully connected branches. The paper's first
    bijection is the logit (`--preprocess logit`), its prior the standard normal.

    Training estimates the log-determinant by `terms` and a roulette, with Neumann's gradient (for events of at most 3
    numbers it is exact); evaluation is exact up to `exact_dims` numbers in an event, and else unbiased with
    `evaluation_terms` and the same roulette. The presets are the paper's, and its code's 2-D toys ("toy").

    With classes it is the paper's hybrid: a head classifies what stands after each scale, squeezed. (The paper's has no
    linear blocks, and standardises pictures where densities alone take the logit.)

    Args:
        shape: Shape of an event, (D,) or (C, H, W), of at least two numbers.
        scales: Scales of a picture, whose sides must divide by 2^(scales - 1); by default as many as they allow, at
            most 3.
        blocks: Residual blocks of a scale.
        width: Maps (or units) of a branch's hidden layers.
        depth: Hidden layers of a branch.
        coefficient: Largest spectral norm of a layer, below 1; the slope of a branch is at most its power.
        activation: Of slope at most 1: elu, lipswish, or clipswish, which doubles what follows it.
        growth: Features that each layer of a densely connected branch adds (i-DenseNet), in place of width; 0 for none.
        border: What convolutions see beyond the border.
        linear_blocks: Fully connected blocks at the end of a picture's flow.
        linear_width: Units of their hidden layers.
        terms: Terms of a training log-determinant's series that are always computed.
        roulette: Distribution of the number of further terms, which makes the estimate unbiased; or none.
        rate: Mean of that number.
        probe: Entries of the probes of a trace.
        probes: Probes that are averaged in training.
        evaluation_terms: Terms that are always computed in evaluation, before the roulette.
        exact_dims: Numbers of an event up to which evaluation computes the Jacobian.
        classes: Classes of the classifier beside the density; 0 for none.
        head: What the classifier sees: every scale (the paper's), or the latent, normalised by groups or batches.
        context: Features of a context vector that the branches see; 0 for none.
    """
    vector_or_picture("residualflow", shape)
    at_least("residualflow", 1, scales=scales, blocks=blocks, width=width, depth=depth, linear_width=linear_width)
    at_least("residualflow", 0, classes=classes, context=context, growth=growth, exact_dims=exact_dims)
    at_least("residualflow", 0, linear_blocks=linear_blocks)
    choose("head", head, BEGINNINGS)
    if classes and context:
        raise UsageError("residualflow expects classes or context, not both")
    how = Blocks(
        width=width,
        depth=depth,
        coefficient=coefficient,
        activation=activation,
        growth=growth,
        border=border,
        series=Series(terms, roulette, rate, probes, probe),
        evaluation_terms=evaluation_terms,
        exact_dims=exact_dims,
        context=context,
    )

    def stage(inner: tuple[int, ...], left: int, *, first: bool) -> Bijection:
        parts = [*how.stage(inner, blocks, first=first), norm_of(inner)]
        if left > 1:
            following = stage((4 * inner[0], inner[1] // 2, inner[2] // 2), left - 1, first=False)
            parts += [Waypoint()] if classes else []
            parts.append(Under(Squeeze(), following))
        return Chain(*parts)

    squeezes = squeezes_between("residualflow", shape, scales)
    whole = stage(shape, 1 + squeezes, first=True)
    if linear_blocks and len(shape) == 3:
        vector = (prod(shape),)
        ends = [*how.stage(vector, linear_blocks, first=False, width=linear_width), norm_of(vector)]
        whole = Chain(whole, Under(Flatten(shape), Chain(*ends)))
    if classes:
        return Hybrid(whole, StandardNormal(shape), classes, head=head, squeezes=squeezes)
    return Flow(whole, StandardNormal(shape), (context,) if context else None)

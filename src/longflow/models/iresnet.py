"""Invertible residual networks (Behrmann, Grathwohl, Chen, Duvenaud & Jacobsen, ICML 2019)."""

from typing import Any, Literal

from longflow.bijections import Affine, Bijection, Chain, FactorOut, Learned, Squeeze, Under, Waypoint
from longflow.bijections.estimated import EXACT_DIMS
from longflow.bijections.series import Roulette, Series
from longflow.distributions import Flow, Head, Hybrid, StandardNormal
from longflow.distributions.hybrid import BEGINNINGS
from longflow.errors import UsageError, choose
from longflow.models.blocks import MOST_SCALES, Blocks, squeezes_between
from longflow.models.checks import at_least, scales_of, vector_or_picture

PRESETS: dict[str, dict[str, Any]] = {
    "cifar10": {"scales": 3, "blocks": 32, "width": 512},
    "script": {"scales": 3, "blocks": 16, "width": 512},
    "mnist": {"scales": 2, "blocks": 32, "width": 32, "terms": 10},
    "toy": {"blocks": 100, "width": 64, "depth": 3},
    "digits": {"scales": 2, "blocks": 6, "width": 64},
    "classifier": {
        "scales": 3,
        "squeeze_first": False,
        "blocks": 7,
        "width": 32,
        "widening": 2,
        "padding": 13,
        "classes": 10,
        "head": "batch",
    },
}


def iresnet(
    shape: tuple[int, ...],
    *,
    scales: int | None = None,
    squeeze_first: bool = True,
    blocks: int = 8,
    width: int = 64,
    widening: int = 1,
    depth: int = 2,
    coefficient: float = 0.9,
    activation: str = "elu",
    growth: int = 0,
    border: Literal["zeros", "periodic"] = "zeros",
    terms: int = 5,
    roulette: Roulette = "none",
    rate: float = 2.0,
    probe: Literal["rademacher", "gaussian"] = "gaussian",
    probes: int = 1,
    evaluation_terms: int = 20,
    exact_dims: int = EXACT_DIMS,
    padding: int = 0,
    classes: int = 0,
    head: Head = "groups",
    context: int = 0,
) -> Flow:
    """Residual blocks x + g(x) whose branches are contractions, each after a learned scale (ActNorm).

    Pictures are squeezed before each scale (or between scales), and half of the features is finished after it, unless
    there are classes; branches are convolutions of sides 3, 1, 3. For vectors there is one scale, of fully connected
    branches. The prior is normal with a learned mean and deviation of every number.

    The paper trains on a series that is cut after `terms`, hence biased, and so is this by default; with a roulette it
    is unbiased, and for events of at most 3 numbers exact. Evaluation is exact up to `exact_dims` numbers in an event,
    and else unbiased, whatever training was. With classes it is the paper's classifier of the latent beside the
    density: `--density-weight 0` trains the classifier alone. The presets are the paper's for CIFAR-10 and MNIST, its
    code's for CIFAR-10 ("script") and for classifying it ("classifier"), and its 2-D toys'.

    Args:
        shape: Shape of an event, (D,) or (C, H, W), of at least two numbers.
        scales: Scales of a picture, whose sides must divide by 2^scales (2^(scales - 1) where the first is not
            squeezed); by default as many as they allow, at most 3.
        squeeze_first: Squeeze a picture before the first scale too, not only between scales (the paper's densities do,
            its classifiers do not).
        blocks: Residual blocks of a scale.
        width: Maps (or units) of a branch's hidden layers, in the first scale.
        widening: How many times as wide they are in each further scale.
        depth: Hidden layers of a branch.
        coefficient: Largest spectral norm of a layer, below 1; the slope of a branch is at most its power.
        activation: Of slope at most 1: elu, lipswish, or clipswish, which doubles what follows it.
        growth: Features that each layer of a densely connected branch adds (i-DenseNet), in place of width; 0 for none.
        border: What convolutions see beyond the border.
        terms: Terms of a training log-determinant's series that are always computed.
        roulette: Distribution of the number of further terms, which makes the estimate unbiased; or none.
        rate: Mean of that number.
        probe: Entries of the probes of a trace.
        probes: Probes that are averaged in training.
        evaluation_terms: Terms that are always computed in evaluation, before a roulette.
        exact_dims: Numbers of an event up to which evaluation computes the Jacobian.
        padding: Features that are appended to an event, noise in training and noughts in encoding: branches can use
            them, and the likelihood is a lower bound (the paper's classifier has 13 channels of noughts).
        classes: Classes of the classifier beside the density; 0 for none.
        head: What the classifier sees: the latent, convolved and normalised by groups, or normalised by batches (the
            paper's), or every scale, convolved (residual flows').
        context: Features of a context vector that the branches see; 0 for none.
    """
    vector_or_picture("iresnet", shape)
    at_least("iresnet", 1, blocks=blocks, width=width, widening=widening, depth=depth, scales=scales)
    at_least("iresnet", 0, classes=classes, context=context, growth=growth, exact_dims=exact_dims, padding=padding)
    choose("head", head, BEGINNINGS)
    if classes and context:
        raise UsageError("iresnet expects classes or context, not both")
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

    def stage(inner: tuple[int, ...], left: int, wide: int, *, first: bool) -> Bijection:
        parts = how.stage(inner, blocks, first=first, width=wide)
        if left > 1:
            rest = inner if classes else (inner[0] // 2, *inner[1:])
            following = Under(Squeeze(), stage(_squeezed(rest), left - 1, widening * wide, first=False))
            parts += [Waypoint()] if classes and head == "scales" else []
            parts.append(following if classes else FactorOut(following))
        return Chain(*parts)

    padded = (shape[0] + padding, *shape[1:])
    if len(shape) == 1 or not squeeze_first:
        squeezes = squeezes_between("iresnet", shape, scales)
        if squeezes and not classes and padded[0] < 2:
            raise UsageError("iresnet expects squeeze_first of pictures of one channel: no half of it can be finished")
        bijection = stage(padded, 1 + squeezes, width, first=True)
    else:
        squeezes = scales_of("iresnet", shape, scales, MOST_SCALES)
        bijection = Under(Squeeze(), stage(_squeezed(padded), squeezes, width, first=True))
    bijection, base = Chain(bijection, Learned(Affine(), padded)), StandardNormal(padded)
    if classes:
        return Hybrid(bijection, base, classes, head=head, squeezes=squeezes, padding=padding)
    return Flow(bijection, base, (context,) if context else None, padding=padding)


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return 4 * shape[0], shape[1] // 2, shape[2] // 2

"""From a configuration to a model of the stored data, and from a folder to the model in it."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from longflow.bijections import Bijection, Chain, Logit, Standardise
from longflow.data import Support
from longflow.distributions import Dequantised, Flow, Injective
from longflow.errors import UsageError, choose
from longflow.families import Coder, Representation
from longflow.models.catalogue import build
from longflow.models.supported import supported
from longflow.nets import embedding
from longflow.runs import Run

PREPROCESSING: dict[str, Callable[[tuple[int, ...], int], Bijection]] = {
    "none": lambda shape, levels: Chain(),
    "unit": lambda shape, levels: Standardise(0.0, float(levels)),
    "centred": lambda shape, levels: Standardise(levels / 2, float(levels)),
    "logit": lambda shape, levels: Chain(Standardise(0.0, float(levels)), Logit(0.05)),
    "standardise": lambda shape, levels: Standardise(*_per_feature(shape)),
}
"""The first bijections: levels to [0, 1), to [-½, ½), to logits (RealNVP, α = 0.05), or features to mean 0, sd 1."""


def assemble(config: Mapping[str, Any]) -> Coder:
    """Build what `config` describes, with fresh weights: a distribution of the stored data, in their units, or a code.

    Keys: `model`, `options`, `shape`, `preprocess` (a name in PREPROCESSING) and `levels` (None for continuous
    data); `supports`, the notation of each column's (see `Support`) or None, where any is declared. Of a conditional
    density, `embedding`: `context_shape`, and `embed_features`, `embed_width` and `embed_depth` of the network
    (`longflow.nets.embedding`) that makes of contexts, in the user's units, the features that the option `context`
    counts. Raises UsageError where one is missing or unknown.
    """
    missing = [key for key in ("model", "options", "shape", "preprocess", "levels") if key not in config]
    if missing:
        raise UsageError(f"the configuration lacks {', '.join(missing)}: it is no model of longflow")
    shape, levels = tuple(config["shape"]), config["levels"]
    inner = build(config["model"], shape, levels=levels, **config["options"])
    if config.get("embedding"):
        _embed(inner, **config["embedding"])
    kind = choose("preprocessing", config["preprocess"], PREPROCESSING)
    if levels is None and kind in ("unit", "centred", "logit"):
        raise UsageError(
            f"preprocessing '{kind}' needs data with levels; these are continuous (use 'standardise' or 'none')"
        )
    if kind != "none" and inner.levels is not None:
        raise UsageError(f"preprocessing '{kind}' is for densities; a model of levels expects 'none'")
    if isinstance(inner, Injective) and levels is not None:
        raise UsageError(
            f"{config['model']} expects continuous data, which lie near a manifold; of {levels} levels dequantised they"
            " fill the space"
        )
    if kind != "none":
        inner.preprocess(PREPROCESSING[kind](shape, levels or 0))
    continuous = levels is None or inner.levels is not None
    model = inner if continuous or isinstance(inner, Representation) else Dequantised(inner, levels)
    if config.get("supports"):
        model = supported(model, [Support.parse(text or "real") for text in config["supports"]])
    model.config = dict(config)
    return model


def _embed(inner: Coder, context_shape: Sequence[int], embed_features: int, embed_width: int, embed_depth: int) -> None:
    """Let a density take contexts in the user's units."""
    if not isinstance(inner, Flow):
        raise UsageError("contexts expect a flow, which a bijection conditions")
    network = embedding(tuple(context_shape), features=embed_features, width=embed_width, depth=embed_depth)
    inner.embed(network, tuple(context_shape))


def load(folder: str | os.PathLike[str]) -> Coder:
    """Load the model of a run directory, or of any folder with config.json and model.safetensors, ready to use."""
    run = Run.open(folder)
    model = assemble(run.config())
    put_weights(model, run.weights(), str(run.weights_file))
    return model.eval()


def put_weights(model: torch.nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights; raise UsageError naming the first misfit where they belong to another model."""
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    came = {name: tuple(value.shape) for name, value in weights.items()}
    for name in sorted(own.keys() | came.keys()):
        if own.get(name) != came.get(name):
            raise UsageError(
                f"{source} holds another model than config.json says:"
                f" '{name}' expected {own.get(name)}, {came.get(name)} came"
            )
    model.load_state_dict(dict(weights))


def _per_feature(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    wide = (shape[0], *[1] * (len(shape) - 1))
    return torch.zeros(wide), torch.ones(wide)

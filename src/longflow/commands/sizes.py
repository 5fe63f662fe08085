"""How large the presets are, beside what is published."""

from typing import Any

import torch

from longflow.errors import choose
from longflow.models import CATALOGUE, build


def sizes(model: str | None = None) -> dict[str, Any]:
    """Count the learned parameters of each preset that a paper or a table gives a size of, and print both.

    Args:
        model: One model's presets only.
    """
    names = list(CATALOGUE) if model is None else [choose("model", model, CATALOGUE)]
    found = {}
    for name in names:
        for preset, published in CATALOGUE[name].published.items():
            with torch.device("meta"):  # shapes alone: bounding the norms of the papers' networks takes a minute
                flow = build(name, published.shape, preset=preset)
            found[f"{name} {preset}"] = {
                "shape": list(published.shape),
                "parameters": sum(p.numel() for p in flow.parameters()),
                "published": published.parameters,
            }
    return {"presets": found}

"""Where did a number stop being finite?"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from longflow.errors import UsageError


def offending_layer(model: nn.Module, x: Tensor, context: Tensor | None) -> str:
    """Run the model once more and name the first layer whose output is not finite, else whose gradient is not."""
    found: list[str] = []
    hooks = [module.register_forward_hook(_watch(name, found)) for name, module in model.named_modules()]
    try:
        with torch.no_grad():
            try:
                model(x, context)
            except UsageError:  # labels are no context of a density
                model(x)
    finally:
        for hook in hooks:
            hook.remove()
    if found:
        return f"first non-finite output in layer '{found[0]}'"
    bad = [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    return f"first non-finite gradient in '{bad[0]}'" if bad else "no layer found on a second run (random noise?)"


def _watch(name: str, found: list[str]) -> Callable[[nn.Module, Any, Any], None]:
    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        if not all(t.isfinite().all() for t in outputs if isinstance(t, Tensor)):
            found.append(f"{name or 'model'} ({type(module).__name__})")

    return look

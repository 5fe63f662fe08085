"""Where did a number stop being finite?"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from longflow.objectives import Turn


def offending_layer(model: nn.Module, turns: Iterable[Turn], part: str) -> str:
    """Play the turns of the step once more, up to that of `part`, and name the first layer whose output is not finite.

    Else name a parameter whose gradient is not.
    """
    found: list[str] = []
    hooks = [module.register_forward_hook(_watch(name, found)) for name, module in model.named_modules()]
    try:
        with torch.compiler.set_stance("force_eager"):  # a compiled model would not call the hooks
            _play(turns, part)
    finally:
        for hook in hooks:
            hook.remove()
    if found:
        return f"first non-finite output in layer '{found[0]}'"
    bad = [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    return f"first non-finite gradient in '{bad[0]}'" if bad else "no layer found on a second run (random noise?)"


def _play(turns: Iterable[Turn], part: str) -> None:
    for turn, _ in turns:
        if turn == part:
            return


def _watch(name: str, found: list[str]) -> Callable[[nn.Module, Any, Any], None]:
    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        if not all(t.isfinite().all() for t in outputs if isinstance(t, Tensor)):
            found.append(f"{name or 'model'} ({type(module).__name__})")

    return look

"""longflow: flow-based generative models."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longflow.models import build, load

__version__ = "0.1.0"

__all__ = ["__version__", "build", "load"]


def __getattr__(name: str) -> Any:
    """Import torch only when a model is asked for: the program must set its environment first."""
    if name not in ("build", "load"):
        raise AttributeError(f"module 'longflow' has no attribute '{name}'")
    from longflow import models

    return getattr(models, name)

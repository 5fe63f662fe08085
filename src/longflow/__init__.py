"""longflow: flow-based generative models."""

from longflow.models import build, load

__version__ = "0.1.0"

__all__ = ["__version__", "build", "load"]

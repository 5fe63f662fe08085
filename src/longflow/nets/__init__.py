"""Networks that turn one context into another."""

from longflow.nets.mlp import MLP

__all__ = ["MLP"]

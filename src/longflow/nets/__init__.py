"""Networks that turn one context into another."""

from longflow.nets.conv import ConvNet, ZeroConv
from longflow.nets.mlp import MLP

__all__ = ["MLP", "ConvNet", "ZeroConv"]

"""Networks that turn one context into another."""

from longflow.nets.contraction import Branch, Contraction, DenseContraction, conv_layers, linear_layers
from longflow.nets.conv import ChannelNorm, ConvNet, ZeroConv, beside
from longflow.nets.field import ConcatSquash
from longflow.nets.mlp import MLP
from longflow.nets.resnet import BatchNorm2d, ResNet

__all__ = [
    "MLP",
    "BatchNorm2d",
    "Branch",
    "ChannelNorm",
    "ConcatSquash",
    "Contraction",
    "ConvNet",
    "DenseContraction",
    "ResNet",
    "ZeroConv",
    "beside",
    "conv_layers",
    "linear_layers",
]

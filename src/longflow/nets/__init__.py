"""Networks that turn one context into another."""

from longflow.nets.causal import Causal, Seen
from longflow.nets.contraction import Branch, Contraction, DenseContraction, conv_layers, linear_layers
from longflow.nets.conv import ChannelNorm, ConvNet, ZeroConv, beside
from longflow.nets.embedding import Standardiser, embedding
from longflow.nets.field import ConcatSquash
from longflow.nets.made import MADE, MaskedLinear, ResMADE
from longflow.nets.mlp import MLP
from longflow.nets.residual_mlp import ResidualMLP
from longflow.nets.resnet import BatchNorm2d, ResNet

__all__ = [
    "MADE",
    "MLP",
    "BatchNorm2d",
    "Branch",
    "Causal",
    "ChannelNorm",
    "ConcatSquash",
    "Contraction",
    "ConvNet",
    "DenseContraction",
    "MaskedLinear",
    "ResMADE",
    "ResNet",
    "ResidualMLP",
    "Seen",
    "Standardiser",
    "ZeroConv",
    "beside",
    "conv_layers",
    "embedding",
    "linear_layers",
]

"""The heart: invertible maps with log-determinants."""

from longflow.adaptive import adapt, settle
from longflow.bijections.autoregressive import Autoregressive
from longflow.bijections.bijection import Bijection, Example, Step, no_log_det
from longflow.bijections.bounds import HalfToOne, ScaledTanh, SigmoidPlusTwo, SoftClip
from longflow.bijections.compose import Chain, Coupling, Embedded, FactorOut, Inverse, Leading, Under
from longflow.bijections.elementwise import Affine, Elementwise, Learned, Logit, Scale, Shift, Standardise
from longflow.bijections.linear import ExpLinear, FreeLinear, PLULinear, QRLinear
from longflow.bijections.norm import BatchNorm
from longflow.bijections.orthogonal import Householder, Rotation
from longflow.bijections.planar import Planar, Radial, Sylvester
from longflow.bijections.rational_quadratic import RationalQuadratic
from longflow.bijections.rearrange import (
    Checkerboard,
    Flatten,
    Halves,
    Interleave,
    Permute,
    Rearrangement,
    Reverse,
    Squeeze,
    Waypoint,
)
from longflow.bijections.residual import Residual
from longflow.bijections.triangular import TriangularLinear
from longflow.constraints import constrain, tighten

__all__ = [
    "Affine",
    "Autoregressive",
    "BatchNorm",
    "Bijection",
    "Chain",
    "Checkerboard",
    "Coupling",
    "Elementwise",
    "Embedded",
    "Example",
    "ExpLinear",
    "FactorOut",
    "Flatten",
    "FreeLinear",
    "HalfToOne",
    "Halves",
    "Householder",
    "Interleave",
    "Inverse",
    "Leading",
    "Learned",
    "Logit",
    "PLULinear",
    "Permute",
    "Planar",
    "QRLinear",
    "Radial",
    "RationalQuadratic",
    "Rearrangement",
    "Residual",
    "Reverse",
    "Rotation",
    "Scale",
    "ScaledTanh",
    "Shift",
    "SigmoidPlusTwo",
    "SoftClip",
    "Squeeze",
    "Standardise",
    "Step",
    "Sylvester",
    "TriangularLinear",
    "Under",
    "Waypoint",
    "adapt",
    "constrain",
    "no_log_det",
    "settle",
    "tighten",
]

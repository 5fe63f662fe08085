"""The heart: invertible maps with log-determinants."""

from longflow.adaptive import adapt, settle
from longflow.bijections.bijection import Bijection, Example, Step, no_log_det
from longflow.bijections.bounds import HalfToOne, ScaledTanh, SigmoidPlusTwo
from longflow.bijections.compose import Chain, Coupling, Embedded, FactorOut, Inverse, Leading, Under
from longflow.bijections.continuous import Continuous
from longflow.bijections.elementwise import Affine, Elementwise, Learned, Logit, Scale, Shift, Standardise
from longflow.bijections.estimated import Estimated
from longflow.bijections.linear import ExpLinear, FreeLinear, PLULinear, QRLinear
from longflow.bijections.norm import BatchNorm
from longflow.bijections.planar import Planar, Radial, Sylvester
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
from longflow.bijections.solver import Solver
from longflow.constraints import constrain, tighten

__all__ = [
    "Affine",
    "BatchNorm",
    "Bijection",
    "Chain",
    "Checkerboard",
    "Continuous",
    "Coupling",
    "Elementwise",
    "Embedded",
    "Estimated",
    "Example",
    "ExpLinear",
    "FactorOut",
    "Flatten",
    "FreeLinear",
    "HalfToOne",
    "Halves",
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
    "Rearrangement",
    "Residual",
    "Reverse",
    "Scale",
    "ScaledTanh",
    "Shift",
    "SigmoidPlusTwo",
    "Solver",
    "Squeeze",
    "Standardise",
    "Step",
    "Sylvester",
    "Under",
    "Waypoint",
    "adapt",
    "constrain",
    "no_log_det",
    "settle",
    "tighten",
]

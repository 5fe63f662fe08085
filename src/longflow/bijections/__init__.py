"""The heart: invertible maps with log-determinants."""

from longflow.adaptive import adapt, settle
from longflow.bijections.autoregressive import Autoregressive
from longflow.bijections.bernstein import Bernstein
from longflow.bijections.bijection import Bijection, Example, Step, no_log_det
from longflow.bijections.bounds import HalfToOne, ScaledTanh, SigmoidPlusTwo, SoftClip
from longflow.bijections.circular import CircularShift
from longflow.bijections.compose import At, Chain, Coupling, Embedded, FactorOut, Inverse, Leading, Under
from longflow.bijections.continuous import Continuous
from longflow.bijections.elementwise import Affine, Elementwise, Learned, Logit, Scale, Shift, Standardise
from longflow.bijections.estimated import Estimated
from longflow.bijections.full_coupling import FullCoupling
from longflow.bijections.linear import ExpLinear, FreeLinear, PLULinear, QRLinear
from longflow.bijections.mixture import DeepSigmoid, LogisticMixture
from longflow.bijections.norm import BatchNorm
from longflow.bijections.orthogonal import Householder, Rotation
from longflow.bijections.planar import Planar, Radial, Sylvester
from longflow.bijections.polynomial import SumOfSquares
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
from longflow.bijections.solver import Solver
from longflow.bijections.splines import LinearSpline, QuadraticSpline
from longflow.bijections.triangular import TriangularLinear
from longflow.bijections.unconstrain import Unconstrain
from longflow.constraints import constrain, tighten

__all__ = [
    "Affine",
    "At",
    "Autoregressive",
    "BatchNorm",
    "Bernstein",
    "Bijection",
    "Chain",
    "Checkerboard",
    "CircularShift",
    "Continuous",
    "Coupling",
    "DeepSigmoid",
    "Elementwise",
    "Embedded",
    "Estimated",
    "Example",
    "ExpLinear",
    "FactorOut",
    "Flatten",
    "FreeLinear",
    "FullCoupling",
    "HalfToOne",
    "Halves",
    "Householder",
    "Interleave",
    "Inverse",
    "Leading",
    "Learned",
    "LinearSpline",
    "LogisticMixture",
    "Logit",
    "PLULinear",
    "Permute",
    "Planar",
    "QRLinear",
    "QuadraticSpline",
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
    "Solver",
    "Squeeze",
    "Standardise",
    "Step",
    "SumOfSquares",
    "Sylvester",
    "TriangularLinear",
    "Unconstrain",
    "Under",
    "Waypoint",
    "adapt",
    "constrain",
    "no_log_det",
    "settle",
    "tighten",
]

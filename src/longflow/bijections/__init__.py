"""The heart: invertible maps with log-determinants."""

from longflow.bijections.bijection import Adaptive, Bijection, Example, Step, adapt, no_log_det
from longflow.bijections.compose import Chain, Coupling, Inverse, Under
from longflow.bijections.elementwise import Affine, Elementwise, Learned, Logit, Scale, Shift, Standardise
from longflow.bijections.rearrange import Flatten, Halves, Interleave, Permute, Rearrangement, Reverse

__all__ = [
    "Adaptive",
    "Affine",
    "Bijection",
    "Chain",
    "Coupling",
    "Elementwise",
    "Example",
    "Flatten",
    "Halves",
    "Interleave",
    "Inverse",
    "Learned",
    "Logit",
    "Permute",
    "Rearrangement",
    "Reverse",
    "Scale",
    "Shift",
    "Standardise",
    "Step",
    "Under",
    "adapt",
    "no_log_det",
]

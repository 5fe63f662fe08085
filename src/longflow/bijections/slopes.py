"""Slopes between m and 1/m, of any number."""

from torch import Tensor

from longflow.errors import UsageError

MOST = 60.0
"""Bound on a parameter, whose exponential must be finite in float32."""


def slopes_at(parameters: Tensor, least: float) -> Tensor:
    """Return (eᵗ + m) / (1 + m eᵗ), increasing, in [m, 1/m]: 1 at 0, and at -t the inverse of that at t."""
    e = parameters.clamp(-MOST, MOST).exp()
    return (e + least) / (1 + least * e)


def checked(bound: float, slope: float) -> tuple[float, float]:
    """Return both; raise UsageError where the half-width B is not positive, or the least slope m not in (0, 1)."""
    if not 0 < bound < float("inf"):
        raise UsageError(f"a spline expects 0 < bound < inf; {bound} came")
    if not 0 < slope < 1:
        raise UsageError(f"a spline expects 0 < slope < 1; {slope} came")
    return bound, slope

"""One policy for every comparison: absolute errors per dtype. Estimates are made exact by injecting their probes."""

import torch

EXACT = 1e-9
"""float64 against an oracle in float64."""

FLOAT32_ROUND_TRIP = 1e-5
"""float32: |f⁻¹(f(x)) - x| for x of order one."""

FLOAT32_LOG_DET = 1e-4
"""float32: |log-det - log-det in float64|, in nats, for events of order ten numbers."""

NORMALISED = 1e-3
"""|∫ p - 1| on a grid over the whole line."""

SIGMAS = 4.5
"""Standard errors allowed between a Monte-Carlo mean and its exact value (one failure in 150,000)."""


def close(a, b, tolerance=EXACT):
    """Assert that two tensors agree to the absolute tolerance, with both printed when they do not."""
    torch.testing.assert_close(a, b, atol=tolerance, rtol=0.0)

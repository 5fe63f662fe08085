"""Is a trained flow really invertible and normalised? Measured, per dtype, against independent oracles."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import jacrev

from longflow.commands.evaluate import dataset_of, fixed_draws
from longflow.distributions import Flow
from longflow.errors import UsageError
from longflow.models import load
from longflow.runs import Run
from longflow.training.device import prepare

JACOBIAN_DIMS = 1024
"""Events of more numbers than this are not checked against the Jacobian: it would take minutes."""

ROUND_TRIP = {"float32": 1e-3, "float64": 1e-8}
"""Allowed |f⁻¹(f(x)) - x| on data, as a share of the data's standard deviation."""

LOG_DET = {"float32": 1e-4, "float64": 1e-8}
"""Allowed error of the log-determinant, in nats for each dimension."""

NORMALISED = 1e-3
GRID = 1500


def check(run: str, *, n: int = 8, seed: int = 0, device: str = "auto") -> dict[str, Any]:
    """Measure round trips, log-determinants and, in the plane, the integral of the density of a run's model.

    Round trips are measured on test data, on the model's own samples, and off the distribution, where an inverse may
    explode: uniform noise over the data's range, and Gaussian noise three times as wide as the data (clipped to the
    range of levels). Only those on data and samples decide `passed`.

    Args:
        run: A run directory.
        n: Events of each kind.
        seed: Seed of the noise.
        device: auto, cpu, cuda, cuda:1, ...
    """
    if n < 1:
        raise UsageError(f"expected -n >= 1; {n} came")
    place = prepare(device)
    folder = Run.open(run)
    flow = load(folder.path).density.to(place)
    rows = dataset_of(folder).split("test")
    with fixed_draws(seed):
        inputs = _inputs(flow.double(), rows, n, noise=folder.config()["levels"] is not None)
    spread = float(rows.std())
    result: dict[str, Any] = {
        "model": folder.config()["model"],
        "n": n,
        "dims": flow.dims,
        "data_std": spread,
        "dtypes": {},
    }
    for name, dtype in (("float64", torch.float64), ("float32", torch.float32)):
        result["dtypes"][name] = _measure(flow.to(dtype), {k: x.to(dtype) for k, x in inputs.items()})
    if flow.shape == (2,) and folder.config()["levels"] is None:
        result["integral"] = integral(flow.double(), inputs["data"])
    result["passed"] = _passed(result)
    return result


def _inputs(flow: Flow, rows: np.ndarray, n: int, *, noise: bool) -> dict[str, Tensor]:
    like = next(flow.parameters())
    every = torch.as_tensor(rows[: max(n, 1000)]).to(like)
    data = every[:n] + (torch.rand_like(every[:n]) if noise else 0)
    low, high = every.min(), every.max() + noise
    wide = every.mean() + 3 * every.std() * torch.randn_like(data)
    with torch.no_grad():
        own = flow.sample(n)
    return {
        "data": data,
        "samples": own,
        "uniform noise": low + (high - low) * torch.rand_like(data),
        "wide Gaussian noise": wide.clamp(low, high) if noise else wide,
    }


def _measure(flow: Flow, inputs: dict[str, Tensor]) -> dict[str, Any]:
    with torch.no_grad():
        trips = {name: (flow.decode(flow.encode(x)) - x).abs() for name, x in inputs.items()}
    measured: dict[str, Any] = {
        "round_trip_max_abs": {name: float(error.max()) for name, error in trips.items()},
        "non_finite": {name: int((~error.isfinite()).sum()) for name, error in trips.items()},
        "log_det_max_abs": None,
    }
    if flow.dims <= JACOBIAN_DIMS:
        measured["log_det_max_abs"] = max(
            _log_det_error(flow, x) for x in inputs["data"][: 4 if flow.dims > 256 else 16]
        )
    return measured


def _log_det_error(flow: Flow, x: Tensor) -> float:
    """Return |log-det - slogdet of the autograd Jacobian|, the oracle in float64."""
    with torch.no_grad():
        claimed = flow.bijection(x[None])[1].double()
    wide = x.double()
    dtype = x.dtype
    flow.double()
    jacobian = jacrev(lambda row: flow.bijection(row[None])[0].flatten(), chunk_size=256)(wide)
    flow.to(dtype)
    exact = torch.linalg.slogdet(jacobian.reshape(flow.dims, flow.dims)).logabsdet
    return float((claimed - exact).detach().abs().max())


def integral(flow: Flow, data: Tensor) -> float:
    """Integrate a density of the plane by the midpoint rule over a box that its latent noise fills.

    The box is the data's and the model's own samples' range, thrice as wide.
    """
    with torch.no_grad():
        points = torch.cat((flow.sample(20000, temperature=1.0), data))
        low, high = points.amin(0), points.amax(0)
        low, high = low - (high - low), high + (high - low)
        axes = [low[k] + (high[k] - low[k]) * (torch.arange(GRID).to(points) + 0.5) / GRID for k in range(2)]
        cell = ((high - low) / GRID).prod()
        strips = (torch.cartesian_prod(part, axes[1]) for part in axes[0].split(50))
        return float(sum(flow.log_prob(x).exp().sum() for x in strips) * cell)


def _passed(result: dict[str, Any]) -> bool:
    good = abs(result.get("integral", 1.0) - 1) <= NORMALISED
    for name, measured in result["dtypes"].items():
        worst = max(measured["round_trip_max_abs"][kind] for kind in ("data", "samples"))
        good &= worst <= ROUND_TRIP[name] * max(1.0, result["data_std"])
        error = measured["log_det_max_abs"]
        good &= error is None or error <= LOG_DET[name] * result["dims"]
    return bool(good)

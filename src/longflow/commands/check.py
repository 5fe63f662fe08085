"""Is a trained flow really invertible and normalised? Measured, per dtype, against independent oracles."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.func import jacrev

from longflow.bijections import Estimated, Unconstrain
from longflow.commands.certificate import certificate
from longflow.commands.datasets import dataset_of
from longflow.commands.draw import open_model
from longflow.commands.integral import NORMALISED, mass_of
from longflow.commands.rows import pairs_of
from longflow.data import Dataset, Events
from longflow.distributions import Flow, LatentModel
from longflow.errors import InversionError, UsageError, choose
from longflow.runs import Run
from longflow.seeds import fixed_draws
from longflow.training.early import Pair
from longflow.values import values_only

JACOBIAN_DIMS = 1024
"""Events of more numbers than this are not checked against the Jacobian: it would take minutes."""

ROUND_TRIP = {"float32": 1e-3, "float64": 1e-8}
"""Allowed |f⁻¹(f(x)) - x| on data and samples, in standard deviations of the feature (of all pixels, for pictures)."""

LOG_DET = {"float32": 1e-4, "float64": 1e-8}
"""Allowed error of the log-determinant, in nats for each dimension."""

AT_ONCE = 250
HALF_A_LEVEL = 0.5
SEEN = 1000
"""Events whose range, and codes whose deviation, noise and errors are measured by."""


def check(
    run: str,
    *,
    data: str | None = None,
    other: str | None = None,
    part: str | None = None,
    n: int = 8,
    seed: int = 0,
    device: str = "auto",
) -> dict[str, Any]:
    """Measure round trips, log-determinants and, in the plane, the integral of the density of a run's model.

    Round trips are measured on test data, on the model's own samples, and off the distribution, where an inverse may
    explode (Behrmann et al. 2021): uniform noise over the data's range, Gaussian noise three times as wide as the data
    (clipped to the range of levels), and another data set. `non_finite` is the share of numbers that come back as no
    number, `wrong_pixels` that of levels that come back half a level or more away (None without levels). Only data and
    samples decide `passed`, and for residual blocks the `certificate` that their branches contract. A `discretised`
    flow, which solves a differential equation in steps, is held to the tolerances of float32 in both types. A
    conditional density is measured under the contexts of those test rows, and integrated under the first three: the
    worst is told.

    An autoencoder is no bijection, but its prior or its posterior may be a flow, which is measured on codes, and named
    in `part`: data are codes drawn from q(z | x) of test rows, samples the flow's own, and noise and deviations are of
    the range and the deviation of codes. A posterior is measured under what its encoder says of those rows. Of a
    manifold (`rectangular`) that is the chart, the flow of its coordinates, and codes are coordinates.

    Args:
        run: A run directory.
        data: Another data set than the run's own, a name or a path.
        other: Another data set, of the same shape and levels, for a round trip off the distribution.
        part: The flow within the model that is measured: prior, posterior or chart; by default the prior.
        n: Events of each kind.
        seed: Seed of the noise.
        device: auto, cpu, cuda, cuda:1, ...
    """
    if n < 1:
        raise UsageError(f"expected -n >= 1; {n} came")
    folder, model = open_model(run, device)
    dataset = dataset_of(folder, data)
    events = dataset.events("test")
    with fixed_draws(seed):
        name, flow = _measured(folder, model.double(), events[:1], part)
        levels = folder.config()["levels"] is not None and not name
        every, contexts = _seen(model, name, events[: max(n, SEEN)])
        inputs = _inputs(flow, every, None if contexts is None else contexts[:n], n, levels=levels)
        x, context = inputs["data"]
        if other is not None:
            rest, theirs = _seen(model, name, dataset_of(folder, other).events("test")[:n])
            inputs[f"other data: {other}"] = _inside(flow, rest), theirs
        mass = mass_of(flow, x, context) if flow.shape == (2,) and not levels and not flow.padding else None
        spread = _deviation(model, name, flow, dataset, levels=levels).to(x)
    result: dict[str, Any] = {"model": folder.config()["model"], "n": n, "dims": flow.dims, "dtypes": {}}
    if name:
        result["part"] = name
    if flow.bijection.discretised:
        result["discretised"] = True
    for precision, dtype in (("float64", torch.float64), ("float32", torch.float32)):
        as_type = {k: (x.to(dtype), None if c is None else c.to(dtype)) for k, (x, c) in inputs.items()}
        result["dtypes"][precision] = _measure(flow.to(dtype), as_type, spread, levels=levels)
    guarantee = certificate(flow.double(), x, context)
    if guarantee is not None:
        result["certificate"] = guarantee
    if mass is not None:
        result["integral"], result["integral_resolved"] = mass
        result["conditional"] = context is not None
    result["passed"] = _passed(result)
    return result


def _measured(folder: Run, model: LatentModel, some: Events, asked: str | None) -> tuple[str, Flow]:
    """Return the flow that is measured and which part of the model it is, "" for the whole density."""
    with torch.no_grad():
        found = model.flows(*next(pairs_of(model, some)))
    if not found:
        name = folder.config()["model"]
        raise UsageError(f"check measures what is invertible; {folder} holds a {name}, which is not, and has no flow")
    if asked is not None and "" in found:
        raise UsageError(f"--part is for models within which a flow is a part; {folder} is a flow")
    name = next(iter(found)) if asked is None else choose("part", asked, found)
    return name, cast(Flow, found[name][0])


def _seen(model: LatentModel, part: str, events: Events) -> Pair:
    """Return events as the flow sees them, with its contexts: anywhere in their bins, or codes of them."""
    with torch.no_grad():
        _, x, contexts = zip(*[model.flows(*pair)[part] for pair in pairs_of(model, events)], strict=True)
    given = [c for c in contexts if c is not None]
    return torch.cat(x), torch.cat(given) if given else None


def _inputs(flow: Flow, every: Tensor, context: Tensor | None, n: int, *, levels: bool) -> dict[str, Pair]:
    data, known = every[:n], every.floor() if levels else every
    axes = _pooled(flow) or tuple(range(every.dim()))
    low, high = known.amin(axes), known.amax(axes) + levels
    wide = known.mean(axes) + 3 * known.std(axes) * torch.randn_like(data)
    try:
        with torch.no_grad():
            own = flow.sample(n if context is None else len(context), context)
    except InversionError:
        own = torch.full_like(data, torch.nan)
    inputs = {
        "data": _inside(flow, data),
        "samples": own,
        "uniform noise": _inside(flow, low + (high - low) * torch.rand_like(data)),
        "wide Gaussian noise": _inside(flow, torch.clamp(wide, low, high) if levels else wide),
    }
    return {name: (x, context) for name, x in inputs.items()}


def _deviation(model: LatentModel, part: str, flow: Flow, dataset: Dataset, *, levels: bool) -> Tensor:
    """Return the deviation of each feature (of all pixels, for pictures) of training rows, or of codes of some."""
    if part:
        codes = _seen(model, part, dataset.events("train")[:SEEN])[0]
        return codes.std(_pooled(flow) or tuple(range(codes.dim())))
    own = dataset.split("train").std(_pooled(flow)).astype(np.float64)
    return torch.as_tensor(np.sqrt(own**2 + (1 / 12 if levels else 0)))


def _inside(flow: Flow, x: Tensor) -> Tensor:
    """Return events with what lies on an end of a declared support, or beyond, where the density has it: inside."""
    for ends in (m for m in flow.modules() if isinstance(m, Unconstrain)):
        x = ends.inverse(ends(x)[0])[0]
    return x


def _pooled(flow: Flow) -> tuple[int, ...] | None:
    """Return the axes over which data have one range and deviation: the events; with all else, for pictures."""
    return (0,) if len(flow.shape) == 1 else None


def _measure(flow: Flow, inputs: dict[str, Pair], spread: Tensor, *, levels: bool) -> dict[str, Any]:
    trips = {name: torch.cat([_trip(flow, *part) for part in _split(pair)]) for name, pair in inputs.items()}
    measured: dict[str, Any] = {
        "round_trip_max_abs": {name: float(error.max()) for name, error in trips.items()},
        "round_trip_in_sd": {name: float((error / spread).max()) for name, error in trips.items()},
        "non_finite": {name: float((~error.isfinite()).double().mean()) for name, error in trips.items()},
        "wrong_pixels": {
            name: float((~(error < HALF_A_LEVEL)).double().mean()) if levels else None for name, error in trips.items()
        },
        "log_det_max_abs": None,
    }
    if flow.base.dims <= JACOBIAN_DIMS:
        data, context = inputs["data"]
        some = range(min(len(data), 4 if flow.dims > 256 else 16))
        errors = [_log_det_error(flow if context is None else flow.at(context[k]), data[k]) for k in some]
        measured["log_det_max_abs"] = float(torch.stack(errors).max())
    return measured


def _split(pair: Pair) -> Iterator[Pair]:
    x, context = pair
    parts = x.split(AT_ONCE)
    return zip(parts, [None] * len(parts) if context is None else context.split(AT_ONCE), strict=True)


def _trip(flow: Flow, x: Tensor, context: Tensor | None = None) -> Tensor:
    """Return |f⁻¹(f(x)) - x|, of the shape of x."""
    with torch.no_grad():
        z = flow.encode(x, context)
        try:
            return (flow.decode(z, context) - x).abs()
        except InversionError as error:
            lost = torch.isin(torch.arange(len(x)), torch.tensor(error.rows))
            back = torch.full_like(x, torch.nan)
            if bool((~lost).any()):
                back[~lost] = _trip(flow, x[~lost], None if context is None else context[~lost]) + x[~lost]
            return (back - x).abs()


def _log_det_error(flow: Flow, x: Tensor) -> Tensor:
    """Return |log-det - slogdet of the autograd Jacobian|, the oracle in float64."""
    x = flow.lift(x[None])[0]
    with torch.no_grad(), exact_log_dets(flow):
        claimed = flow.bijection(x[None])[1].double()
    wide = x.double()
    dtype = x.dtype
    flow.double()
    with values_only():
        jacobian = jacrev(lambda row: flow.bijection(row[None])[0].flatten(), chunk_size=256)(wide)
    flow.to(dtype)
    exact = torch.linalg.slogdet(jacobian.reshape(flow.base.dims, -1)).logabsdet
    return (claimed - exact).detach().abs().max()


@contextmanager
def exact_log_dets(flow: Flow) -> Iterator[None]:
    """Let every bijection have its log-determinant exactly meanwhile, however many numbers an event has."""
    blocks = [m for m in flow.modules() if isinstance(m, Estimated)]
    before = [block.exact_dims for block in blocks]
    try:
        for block in blocks:
            block.exact_dims = block.dims
        yield
    finally:
        for block, dims in zip(blocks, before, strict=True):
            block.exact_dims = dims


def _passed(result: dict[str, Any]) -> bool:
    good = not result.get("integral_resolved") or abs(result["integral"] - 1) <= NORMALISED
    good &= result.get("certificate", {"certified": True})["certified"] is not False
    for dtype, measured in result["dtypes"].items():
        name = "float32" if "discretised" in result else dtype
        for kind in ("data", "samples"):
            good &= measured["round_trip_in_sd"][kind] <= ROUND_TRIP[name]  # False for nan too
        error = measured["log_det_max_abs"]
        good &= error is None or error <= LOG_DET[name] * result["dims"]
    return bool(good)

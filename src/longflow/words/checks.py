"""Whether a flow is invertible and normalised, as lines of text."""

from collections.abc import Mapping
from typing import Any

from longflow.units import counted
from longflow.words.result import Result


def check_words(result: Result) -> str:
    """Return the measurements, a line each."""
    what, of = ("event", "data") if "part" not in result else ("code", "code")
    whose = f"the {result['part']} of {result['model']}" if "part" in result else result["model"]
    lines = [f"{whose}, {counted(result['dims'], 'dimension')}, {counted(result['n'], what)} of each kind"]
    for dtype, measured in result["dtypes"].items():
        lines.append(f"{dtype}: round trip, max abs, in units of the {of} (and in standard deviations of the feature)")
        for kind, error in measured["round_trip_max_abs"].items():
            lost, wrong = measured["non_finite"][kind], measured["wrong_pixels"][kind]
            relative = measured["round_trip_in_sd"][kind]
            told = f"   {lost:.2%} of the numbers not finite" if lost else ""
            told += f"   {wrong:.2%} of the levels wrong" if wrong else ""
            lines.append(f"  {kind:<22} {error:.3g} ({relative:.2g}){told}")
        error = measured["log_det_max_abs"]
        shown = "not measured, too many dimensions" if error is None else f"{error:.3g} nats"
        lines.append(f"  log-det against the autograd Jacobian in float64: {shown}")
    if "discretised" in result:
        lines.append("it solves a differential equation in steps: both types are held to the tolerances of float32")
    lines += _certificate_words(result.get("certificate"))
    if "integral" in result:
        resolved = "" if result["integral_resolved"] else " (not resolved by the grid: the density is too narrow)"
        under = ", the worst under three contexts" if result.get("conditional") else ""
        lines.append(f"integral of the density over the plane{under}: {result['integral']:.6f}{resolved}")
    return "\n".join([*lines, "passed" if result["passed"] else "FAILED"])


def _certificate_words(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return []
    kind = "exact" if found["norms_exact"] else "bounds, where pictures are large"
    verdict = {True: "certified", False: "NOT", None: "not certified (the bounds of norms are too loose)"}
    most = "more than can be waited for" if found["iterations"] is None else f"at most {found['iterations']}"
    return [
        f"{counted(found['blocks'], 'residual block')}: {verdict[found['certified']]} invertible",
        f"  largest norm of a layer {found['largest_layer_norm']:.6g} ({kind}); slope of a branch at most"
        f" {found['largest_slope_bound']:.4g}, measured on data {found['largest_measured_slope']:.4g}",
        f"  iterations of the inverse to 1e-6: {most}, on average {found['mean_iterations']:.1f}",
    ]

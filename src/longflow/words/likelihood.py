"""Likelihoods as lines of text: their errors, their convention, how they were had."""

from collections.abc import Mapping
from typing import Any

from longflow.units import counted, with_error
from longflow.words.codes import codes_words
from longflow.words.result import Result


def train_words(result: Result) -> str:
    """Return the test likelihood beside the baselines, and where the report is."""
    lines = [evaluate_words(result)]
    lines += [
        f"  {name}: {with_error(value['bits_per_dim'], value['stderr_bits_per_dim'], '.4f')} bits/dim"
        for name, value in result["baselines"].items()
    ]
    own = result["bits_per_dim"] or 0.0
    beaten = [name for name, value in result["baselines"].items() if value["bits_per_dim"] < own]
    if beaten:
        lines.append(f"this model is worse than the {' and the '.join(beaten)}: train longer, or choose another model")
    return "\n".join([*lines, f"run in {result['run']}, report in {result['report']}"])


def evaluate_words(result: Result) -> str:
    """Return a line with the likelihood, its error and its convention."""
    if "terms" in result:
        return codes_words(result)
    how = ""
    if result["dequantiser"]:
        how = f", {result['dequantiser']} dequantisation, {counted(result['importance_samples'], 'draw')}"
    how += f"; of p(x | {', '.join(result['context'])})" if "context" in result else ""
    how += _log_det_words(result.get("log_det")) + _steps_words(result.get("discretisation"))
    found, classes = result.get("accuracy"), ""
    if found:
        ways = {"bayes": "Bayes' rule", "classifier": "the classifier"}
        classes = "; classes found: " + ", ".join(f"{share:.1%} by {ways[way]}" for way, share in found.items())
    events = f"{result['model']} on {counted(result['n'], result['split'] + ' event')} of {result['data']}"
    if "trained" in result:
        return f"{events}{classes.replace(';', ':')} (the density beside it was not trained)"
    if "distance" in result.get("parts", {}):
        return (
            f"{events}: {with_error(result['nats'], result['stderr_nats'], '.3f')} nats on the learned manifold, in its"
            f" volume (no density of the data); mean distance from it {result['parts']['distance']:.4g}, in units"
            " of the data"
        )
    if result["bits_per_dim"] is None:
        return (
            f"{events}: {with_error(-result['nats'], result['stderr_nats'], '.3f')} nats of cross-entropy of grey"
            f" values and KL (no likelihood){_parts_words(result)}{classes}"
        )
    back = result["roundtrip_max_abs"]
    how += "" if back is None else f"; round trip {back:.2g}"
    if "parts" in result and not result["dequantiser"]:
        how += f", {counted(result['importance_samples'], 'draw')}"
    return (
        f"{events}: {with_error(result['bits_per_dim'], result['stderr_bits_per_dim'], '.4f')} bits/dim,"
        f" {result['nats']:.3f} nats (log-likelihood: {_kind(result)}{how}; units of the stored data;"
        f" {result['dtype']}){_parts_words(result)}{classes}"
    )


def _parts_words(result: Result) -> str:
    if "parts" not in result:
        return ""
    parts = result["parts"]
    told = f"; of one draw: reconstruction {parts['reconstruction']:.3f}, KL {parts['kl']:.3f} nats"
    told += f", {parts['used']} of {parts['groups']} parts of the code used" if "used" in parts else ""
    return told + (f"; {floor_words(result['at_floor'])}" if result.get("at_floor") else "")


def floor_words(share: float) -> str:
    """Return what is at its floor: 1 where it is a deviation that all numbers share."""
    return "a learned deviation is at its floor" if share == 1 else f"{share:.0%} of the deviations are at their floor"


def _kind(result: Result) -> str:
    bounded = result["likelihood"] == "estimate" and result["dequantiser"]
    return "estimate of a lower bound" if bounded else result["likelihood"]


def _log_det_words(how: Mapping[str, Any] | None) -> str:
    if how is None:
        return ""
    if "solver" in how:
        return _solver_words(how)
    if how["exact"]:
        return ", exact log-determinants"
    none = how["roulette"] == "none"
    more = "no roulette" if none else f"{how['roulette']} roulette of {how['rate']:g} more on average"
    bias = f"bias at most {how['bias_bound_bits_per_dim']:.2g} bits/dim" if none else "unbiased"
    return (
        f", log-determinants from {counted(how['terms'], 'term')} and {more},"
        f" {counted(how['probes'], how['probe'] + ' probe')}, {bias}; mean of {counted(how['draws'], 'such draw')}"
        f"{_draws_words(how)}"
    )


def _solver_words(how: Mapping[str, Any]) -> str:
    steps = f"to {how['tolerance']:g}" if "tolerance" in how else f"in {counted(how['steps'], 'step')}"
    drawn = "exact traces"
    if not how["exact"]:
        drawn = f"traces from {counted(how['probes'], how['probe'] + ' probe')}, mean of"
        drawn += f" {counted(how['draws'], 'such draw')}{_draws_words(how)}"
    return f", {how['solver']} {steps}, {drawn}"


def _steps_words(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    return (
        f"; finer steps change log p by {found['mean_nats']:+.2g} nats on average, {found['max_abs_nats']:.2g} at most"
    )


def _draws_words(how: Mapping[str, Any]) -> str:
    error = how["stderr_of_draws_bits_per_dim"]
    return "" if error is None else f", ± {error:.2g} between them"

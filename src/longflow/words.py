"""What the commands print for people: results as lines of text."""

from collections.abc import Mapping
from typing import Any

Result = dict[str, Any]


def list_words(result: Result) -> str:
    """Return the two lists."""
    lines = ["models", *rows(result["models"])]
    return "\n".join([*lines, "data, or a path: folder of pictures, .npz, .npy, .csv, .parquet", *rows(result["data"])])


def rows(entries: Mapping[str, str]) -> list[str]:
    """Return a line for each entry, its name in a column."""
    return [f"  {name:<17}{about}" for name, about in entries.items()]


def sizes_words(result: Result) -> str:
    """Return a line for each preset: parameters, and what is published."""
    lines = []
    for name, size in result["presets"].items():
        shape = "x".join(map(str, size["shape"]))
        lines.append(f"{name}, {shape}: {size['parameters']:,} parameters; published: {size['published']}")
    return "\n".join(lines)


def train_words(result: Result) -> str:
    """Return the test likelihood beside the baselines, and where the report is."""
    lines = [evaluate_words(result)]
    lines += [
        f"  {name}: {value['bits_per_dim']:.4f} ± {value['stderr_bits_per_dim']:.4f} bits/dim"
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
        return _codes_words(result)
    how = ""
    if result["dequantiser"]:
        how = f", {result['dequantiser']} dequantisation, {result['importance_samples']} draw(s)"
    how += f"; of p(x | {', '.join(result['context'])})" if "context" in result else ""
    how += _log_det_words(result.get("log_det")) + _steps_words(result.get("discretisation"))
    found, classes = result.get("accuracy"), ""
    if found:
        ways = {"bayes": "Bayes' rule", "classifier": "the classifier"}
        classes = "; classes found: " + ", ".join(f"{share:.1%} by {ways[way]}" for way, share in found.items())
    events = f"{result['model']} on {result['n']:,} {result['split']} events of {result['data']}"
    if "trained" in result:
        return f"{events}{classes.replace(';', ':')} (the density beside it was not trained)"
    if "distance" in result.get("parts", {}):
        return (
            f"{events}: {result['nats']:.3f} ± {result['stderr_nats']:.3f} nats on the learned manifold, in its volume"
            f" (no density of the data); mean distance from it {result['parts']['distance']:.4g}, in units of the data"
        )
    if result["bits_per_dim"] is None:
        return (
            f"{events}: {-result['nats']:.3f} ± {result['stderr_nats']:.3f} nats of cross-entropy of grey values and KL"
            f" (no likelihood){_parts_words(result)}{classes}"
        )
    back = result["roundtrip_max_abs"]
    how += "" if back is None else f"; round trip {back:.2g}"
    if "parts" in result and not result["dequantiser"]:
        how += f", {result['importance_samples']} draw(s)"
    return (
        f"{events}: {result['bits_per_dim']:.4f} ± {result['stderr_bits_per_dim']:.4f} bits/dim,"
        f" {result['nats']:.3f} nats (log-likelihood: {_kind(result)}{how}; units of the stored data;"
        f" {result['dtype']}){_parts_words(result)}{classes}"
    )


def _codes_words(result: Result) -> str:
    events = f"{result['model']} on {result['n']:,} {result['split']} events of {result['data']}"
    if "error" in result:
        way = f"the mean of {result['draws']} draws" if result["draws"] else "mean codes"
        return (
            f"{events}: error {result['error']:.2%} ± {result['stderr_error']:.2%}, cross-entropy"
            f" {result['cross_entropy']:.4f} bits, calibration error {result['calibration_error']:.4f} (by {way});"
            f" noisy codes say at most {result['rate_bits']:.2f} bits of their data, at"
            f" {result['noisy_cross_entropy']:.4f} bits of cross-entropy (no likelihood)"
        )
    told = ", ".join(f"{name} {value:.4f}" for name, value in result["js_bounds"].items())
    return (
        f"{events}: Jensen-Shannon divergence of data and codes at least {told} nats (of at most 0.6931; no mutual"
        f" information); KL to the prior {result['terms']['kl']:.3f} nats (no likelihood)"
    )


PROBED = {"embedding": "codes", "untrained": "untrained codes", "rows": "rows"}


def probe_words(result: Result) -> str:
    """Return a line of accuracies for codes, for those of an untrained encoder, and for the rows."""
    first = next(iter(result["probes"].values()))
    lines = [
        f"{result['model']}, {result['numbers']} numbers a code: {result['test_rows']:,} test events of"
        f" {result['data']}, ± at most {first['stderr']:.1%}",
        f"  {'':<18}{'linear, ' + format(first['labels'], ',') + ' labels':>22}"
        f"{str(first['k']) + ' nearest, cosine':>20}{'Euclid':>10}",
    ]
    for name, title in PROBED.items():
        one = result["probes"][name]
        lines.append(f"  {title:<18}{one['linear']:>22.1%}{one['cosine']:>20.1%}{one['euclidean']:>10.1%}")
    return "\n".join([*lines, f"neighbours among {result['training_rows']:,} labelled training events"])


def _parts_words(result: Result) -> str:
    if "parts" not in result:
        return ""
    parts = result["parts"]
    told = f"; of one draw: reconstruction {parts['reconstruction']:.3f}, KL {parts['kl']:.3f} nats"
    told += f", {parts['used']} of {parts['groups']} parts of the code used" if "used" in parts else ""
    return told + ("; a learned deviation is at its floor" if result.get("at_floor") else "")


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
        f", log-determinants from {how['terms']} terms and {more}, {how['probes']} {how['probe']} probe(s), {bias};"
        f" mean of {how['draws']} such draw(s){_draws_words(how)}"
    )


def _solver_words(how: Mapping[str, Any]) -> str:
    steps = f"to {how['tolerance']:g}" if "tolerance" in how else f"in {how['steps']} steps"
    drawn = "exact traces"
    if not how["exact"]:
        drawn = f"traces from {how['probes']} {how['probe']} probe(s), mean of {how['draws']} such draw(s)"
        drawn += _draws_words(how)
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


def check_words(result: Result) -> str:
    """Return the measurements, a line each."""
    lines = [f"{result['model']}, {result['dims']} dimensions, {result['n']} events of each kind"]
    for dtype, measured in result["dtypes"].items():
        lines.append(f"{dtype}: round trip, max abs, in units of the data (and in standard deviations of the feature)")
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
        f"{found['blocks']} residual blocks: {verdict[found['certified']]} invertible",
        f"  largest norm of a layer {found['largest_layer_norm']:.6g} ({kind}); slope of a branch at most"
        f" {found['largest_slope_bound']:.4g}, measured on data {found['largest_measured_slope']:.4g}",
        f"  iterations of the inverse to 1e-6: {most}, on average {found['mean_iterations']:.1f}",
    ]


MEASURES = {
    "frechet_distance": "Fréchet distance",
    "kernel_distance": "kernel distance (MMD²)",
    "precision": "precision, k = 3",
    "recall": "recall, k = 3",
    "density": "density, k = 5",
    "coverage": "coverage, k = 5",
    "class_entropy": "entropy of classes, nats",
}


def quality_words(result: Result) -> str:
    """Return, for each space of features, a line for each measure: samples beside the floor; then nearest rows."""
    near, lost = result["nearest_training_row"], result["not_finite"]
    lines = [
        f"{result['model']} at temperature {result['temperature']:g}: {result['n']:,} {result['measured']} against as"
        f" many test events of {result['data']}; floor: as many training rows (none of this is an FID)"
    ]
    for space in result["features"]:
        lines += _space_words(space)
    lines.append(
        f"nearest training row: {near['ratio']:.2f} of the distance of test events (medians);"
        f" {near['near_share']:.1%} ± {near['near_share_stderr']:.1%} of the samples nearer than all but 1% of those;"
        f" copies {near['copies']:.1%} (of test events {near['held_out_copies']:.1%})"
    )
    return "\n".join([*lines, *([f"{lost:,} more samples were not finite and are left out"] if lost else [])])


def _space_words(space: Mapping[str, Any]) -> list[str]:
    made, measured = space["extractor"], space["measures"]
    accuracy = made.get("test_accuracy")
    skill = "" if accuracy is None else f", right on {accuracy:.1%} of the test events"
    lines = [f"features: {made['name']} {made['sha256'][:12]}{skill}", f"  {'':<26}{'samples':>20}{'floor':>20}"]
    for name, title in MEASURES.items():
        if name in measured:
            error = measured.get(f"{name}_stderr", {}).get("samples")
            ours = _with_error(measured[name]["samples"], error)
            lines.append(
                f"  {title:<26}{ours:>20}{_with_error(measured[name]['floor'], measured[name]['floor_sd']):>20}"
            )
    return lines


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.3f}" if error is None else f"{value:.3f} ± {error:.3f}"


def diagnose_words(result: Result) -> str:
    """Return what the codes hold, and the KL of each number of them, largest first."""
    largest = sorted(enumerate(result["kl_of_dims"]), key=lambda pair: -pair[1])
    full = result["mutual_information"] > 0.95 * result["ceiling"]
    return "\n".join(
        [
            f"{result['model']}, codes of {result['n']:,} {result['split']} events, in nats (a unit: a number of it)",
            f"  KL to the prior, on average     {result['kl']:.3f}",
            f"  = mutual information I(X; Z)    {result['mutual_information']:.3f} ± {result['stderr']:.2g}"
            f" (at most log n = {result['ceiling']:.3f}{': it is full' if full else ''})",
            f"  + aggregate-posterior gap       {result['gap']:.3f}"
            f"{' (of these n codes; that of all data is smaller, by as much as I(X; Z) is larger)' if full else ''}",
            f"  active units                    {result['active_units']} of {result['dims']}",
            "  KL by unit                      " + ", ".join(f"z{d} {kl:.3f}" for d, kl in largest[:20]),
        ]
    )


def cluster_words(result: Result) -> str:
    """Return how clusters are used, how they agree with classes where there are labels, and where they are written."""
    used, shares = result["occupancy"]["used"], result["occupancy"]["shares"]
    lines = [
        f"{result['model']} on {result['n']:,} {result['split']} events of {result['data']}: {used} of"
        f" {result['clusters']} clusters used, of {min(shares):.1%} to {max(shares):.1%} of the events; an event's"
        f" cluster has the probability {result['mean_probability']:.2f} on average"
    ]
    if "agreement" in result:
        found = result["agreement"]
        lines.append(
            f"against the labels: accuracy {found['accuracy']:.1%} (one class a cluster), purity {found['purity']:.1%}"
            f" (majority of each cluster), NMI {found['nmi']:.3f}, ARI {found['ari']:.3f}"
        )
    pictures = f", pictures {result['picture']}" if "picture" in result else ""
    return "\n".join([*lines, f"table {result['out']}{pictures}"])


def wrote_words(result: Result) -> str:
    """Return where something was written, and the rest of the result."""
    rest = ", ".join(f"{k} {_word(v)}" for k, v in result.items() if k != "out")
    return f"wrote {result['out']} ({rest})"


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_word(v)}" for k, v in value.items())
    if isinstance(value, list):
        return " ".join(map(_word, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)

"""What codes are worth, as lines of text."""

from longflow.units import counted, with_error
from longflow.words.result import Result


def codes_words(result: Result) -> str:
    """Return a line with what a representation is worth."""
    events = f"{result['model']} on {counted(result['n'], result['split'] + ' event')} of {result['data']}"
    if "error" in result:
        way = f"the mean of {counted(result['draws'], 'draw')}" if result["draws"] else "mean codes"
        return (
            f"{events}: error {with_error(result['error'], result['stderr_error'], '.2%')}, cross-entropy"
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
        f"{result['model']}, {counted(result['numbers'], 'number')} a code:"
        f" {counted(result['test_rows'], 'test event')} of"
        f" {result['data']}, ± at most {first['stderr']:.1%}",
        f"  {'':<18}{'linear, ' + counted(first['labels'], 'label'):>22}"
        f"{str(first['k']) + ' nearest, cosine':>20}{'Euclid':>10}",
    ]
    for name, title in PROBED.items():
        one = result["probes"][name]
        lines.append(f"  {title:<18}{one['linear']:>22.1%}{one['cosine']:>20.1%}{one['euclidean']:>10.1%}")
    return "\n".join([*lines, f"neighbours among {counted(result['training_rows'], 'labelled training event')}"])


def diagnose_words(result: Result) -> str:
    """Return what the codes hold, and the KL of each number or group of them."""
    drawn = f"from {result['draws']} draws of each code"
    prior = f"; p(z) without labels, the mixture of {result['prior_classes']}" if result["prior_classes"] else ""
    way = "" if result["stderr_kl"] is None else f" ({drawn}{prior})"
    normal = result["mutual_information"] is not None
    return "\n".join(
        [
            f"{result['model']}, codes of {result['n']:,} {result['split']} events, in nats (a unit: a number of it)",
            f"  KL to the prior, on average     {_drawn(result['kl'], result['stderr_kl'])}{way}",
            *(
                _surgery(result)
                if normal
                else ["  mutual information, gap         not estimated: q(z | x) is not normal"]
            ),
            *_kl_by_part(result),
        ]
    )


def _surgery(result: Result) -> list[str]:
    """Return lines of what KL is the sum of, and of the active units."""
    full = result["mutual_information"] > 0.95 * result["ceiling"]
    return [
        f"  = mutual information I(X; Z)    {_drawn(result['mutual_information'], result['stderr'])}"
        f" (at most log n = {result['ceiling']:.3f}{': it is full' if full else ''})",
        f"  + aggregate-posterior gap       {_drawn(result['gap'], result['stderr_gap'])}"
        f"{' (of these n codes; that of all data is smaller, by as much as I(X; Z) is larger)' if full else ''}",
        f"  active units                    {result['active_units']} of {result['dims']}"
        f"{'' if result['stderr_kl'] is None else ' (in the scale of the code, which this prior need not fix)'}",
    ]


def _kl_by_part(result: Result) -> list[str]:
    """Return lines of KL by unit, largest first, or by group; none where KL has no parts."""
    if result["kl_of_dims"] is not None:
        largest = sorted(enumerate(result["kl_of_dims"]), key=lambda pair: -pair[1])
        return ["  KL by unit                      " + ", ".join(f"z{d} {kl:.3f}" for d, kl in largest[:20])]
    if result["kl_of_groups"] is None:
        return []
    groups = result["kl_of_groups"]
    return [
        f"  groups of more than 0.01 nats   {result['used_groups']} of {len(groups)}",
        "  KL by group, the coarsest first " + ", ".join(f"{kl:.3f}" for kl in groups),
    ]


def _drawn(value: float, error: float | None) -> str:
    """Return a value and, where it was drawn, its standard error to two digits."""
    return f"{value:.3f}" if error is None else f"{value:.3f} ± {error:.2g}"


def cluster_words(result: Result) -> str:
    """Return how clusters are used, how they agree with classes where there are labels, and where they are written."""
    used, shares = result["occupancy"]["used"], [share for share in result["occupancy"]["shares"] if share]
    lines = [
        f"{result['model']} on {counted(result['n'], result['split'] + ' event')} of {result['data']}: {used} of"
        f" {counted(result['clusters'], 'cluster')} used, of {min(shares):.1%} to {max(shares):.1%} of the events;"
        f" an event's cluster has the probability {result['mean_probability']:.2f} on average"
    ]
    if "agreement" in result:
        found = result["agreement"]
        lines.append(
            f"against the labels: accuracy {found['accuracy']:.1%} (one class a cluster), purity {found['purity']:.1%}"
            f" (majority of each cluster), NMI {found['nmi']:.3f}, ARI {found['ari']:.3f}"
        )
    pictures = f", pictures {result['picture']}" if "picture" in result else ""
    return "\n".join([*lines, f"table {result['out']}{pictures}"])

"""The quality of samples as lines of text."""

from collections.abc import Mapping
from typing import Any

from longflow.units import counted, with_error
from longflow.words.result import Result

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
    return "\n".join([*lines, *([f"left out as not finite: {counted(lost, 'more sample')}"] if lost else [])])


def _space_words(space: Mapping[str, Any]) -> list[str]:
    made, measured = space["extractor"], space["measures"]
    accuracy = made.get("test_accuracy")
    skill = "" if accuracy is None else f", right on {accuracy:.1%} of the test events"
    lines = [f"features: {made['name']} {made['sha256'][:12]}{skill}", f"  {'':<26}{'samples':>20}{'floor':>20}"]
    for name, title in MEASURES.items():
        if name in measured:
            error = measured.get(f"{name}_stderr", {}).get("samples")
            ours = with_error(measured[name]["samples"], error, ".3f")
            floor = with_error(measured[name]["floor"], measured[name]["floor_sd"], ".3f")
            lines.append(f"  {title:<26}{ours:>20}{floor:>20}")
    return lines

"""Whether a run can be gone on with: only by what it was started with."""

import sys
from collections.abc import Sequence
from typing import Any

from longflow.commands.configure import Settings
from longflow.commands.datasets import declarations
from longflow.data import Support
from longflow.data.checks import names_of
from longflow.data.support import declared
from longflow.errors import UsageError
from longflow.runs import Run

LATER_SETTINGS = {
    "label_weight": Settings.label_weight,
    "density_weight": Settings.density_weight,
    "supports": None,
    "compile": Settings.compile,
}
"""Settings that older runs lack."""


def supports_of(run: Run, given: Sequence[str]) -> tuple[str, ...]:
    """Return the supports, COLUMN=SUPPORT each, that a resumed run goes on with: its own.

    Raises UsageError for a given one that is malformed, of no column, or not what the run was started with.
    """
    config = run.config()
    own, names = declarations(config), names_of(config["data"].get("columns"), config["shape"][0])
    for name, kept, came in zip(names, declared(own, names), declared(given, names), strict=True):
        if came not in (None, kept or Support()):
            raise UsageError(f"{run} was trained with {name}={kept or 'real'}; {name}={came} came with --resume")
    return own


def check_same(run: Run, config: dict[str, Any]) -> None:
    """Raise UsageError where a resumed run was started otherwise, but for the number of steps."""
    saved = {**LATER_SETTINGS, **run.config()}
    if "recipe" not in saved:
        raise UsageError(f"{run} holds a model that was not trained here: there is nothing to resume")
    for part in ("options", "recipe", "data", "objective", "embedding"):
        saved, config = {**saved, **(saved.get(part) or {})}, {**config, **(config[part] or {})}
    unknown = config["options"].keys() - saved["options"].keys()
    if saved["model"] == config["model"] and unknown:
        raise UsageError(
            f"{run} was begun by a longflow without the option {', '.join(sorted(unknown))} of {saved['model']}, whose"
            " default may be another than what it did: begin anew"
        )
    fixed = (
        "model",
        "context_columns",
        "embed_features",
        "embed_width",
        "embed_depth",
        *saved["options"],
        "spec",
        "sha256",
        "levels",
        "labels_sha256",
        "context_sha256",
        "preprocess",
        "noise",
        "adapt",
        *LATER_SETTINGS,
        *(saved.get("objective") or {}),
    )
    for key in (*fixed, *saved["recipe"], "patience", "seed"):
        if saved.get(key) != config.get(key):
            raise UsageError(f"{run} was trained with {key} {saved.get(key)}; {config.get(key)} came with --resume")
    if not run.checkpoint_file.is_file():
        if run.report_file.is_file():
            raise UsageError(f"{run} is finished and its checkpoint is gone: there is nothing to go on from")
        print(f"longflow: {run} stopped before its first checkpoint: it starts again", file=sys.stderr)

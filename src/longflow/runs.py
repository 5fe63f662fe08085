"""The run directory: the only state that commands share. Files are written whole or not at all; metrics line by line.

    config.json         model, options, data, preprocessing, recipe, versions, seed
    model.safetensors   the best weights
    checkpoint/last.pt  all that is needed to go on
    metrics.jsonl       a line per log step
    report.json         the final evaluation
    samples/*.png       pictures
    report.html         the report

Nothing is unpickled: weights are safetensors, the checkpoint is read with `weights_only=True`.
"""

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from longflow.errors import UsageError
from longflow.files import finite, write_bytes, write_json, write_text


class Run:
    """A run directory, by its path. Reading checks; writing is atomic (temporary name, fsync, rename)."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.weights_file = self.path / "model.safetensors"
        self.checkpoint_file = self.path / "checkpoint" / "last.pt"
        self.metrics_file = self.path / "metrics.jsonl"
        self.report_file = self.path / "report.json"
        self.page_file = self.path / "report.html"
        self.samples = self.path / "samples"

    def __str__(self) -> str:
        return str(self.path)

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> "Run":
        """Make a new run directory; raise UsageError where something is already there."""
        run = cls(path)
        if run.config_file.exists():
            raise UsageError(f"{run} already holds a run; go on with --resume, or choose another --out")
        if run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
            raise UsageError(f"{run} already exists and is not an empty folder; choose another --out")
        run.path.mkdir(parents=True, exist_ok=True)
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Run":
        """Open an existing run directory; raise UsageError where there is none."""
        run = cls(path)
        if not run.config_file.is_file():
            raise UsageError(f"expected a run directory with a config.json; none at {run}")
        return run

    def config(self) -> dict[str, Any]:
        """Read config.json."""
        return _read_json(self.config_file)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write config.json."""
        write_json(self.config_file, config)

    def weights(self) -> dict[str, Tensor]:
        """Read model.safetensors."""
        if not self.weights_file.is_file():
            raise UsageError(f"{self} lacks model.safetensors (removed, or training stopped before a validation)")
        try:
            return load_file(self.weights_file)
        except SafetensorError as error:
            raise UsageError(f"{self.weights_file} is damaged or no safetensors file ({error})") from error

    def write_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Write model.safetensors."""
        contiguous = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
        write_bytes(self.weights_file, save(contiguous))

    def checkpoint(self) -> dict[str, Any]:
        """Read the last checkpoint."""
        try:
            return torch.load(self.checkpoint_file, map_location="cpu", weights_only=True)
        except Exception as error:
            said = (str(error) or type(error).__name__).splitlines()[0]
            raise UsageError(f"{self.checkpoint_file} is damaged or no checkpoint of longflow ({said})") from error

    def write_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Write the last checkpoint; the one before stays until this one is whole."""
        content = io.BytesIO()
        torch.save(dict(state), content)  # not to the file itself: on a full disk torch raises no OSError
        write_bytes(self.checkpoint_file, content.getbuffer())

    def metrics(self) -> list[dict[str, Any]]:
        """Read the lines of metrics.jsonl; a line cut short by a crash is left out."""
        if not self.metrics_file.is_file():
            return []
        return [record for line in self.metrics_file.read_text().splitlines() if (record := _parse_line(line))]

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        with self.metrics_file.open("a") as f:
            f.write(json.dumps(finite(record), allow_nan=False) + "\n")

    def cut_metrics(self, step: int) -> None:
        """Drop the lines after `step`, which a resumed run will write again."""
        kept = [json.dumps(record) + "\n" for record in self.metrics() if record["step"] <= step]
        write_text(self.metrics_file, "".join(kept))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is damaged or no JSON ({error})") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} is expected to hold one JSON object")
    return content


def _parse_line(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:
        return None

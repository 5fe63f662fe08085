"""Training a model on a data set, from nothing to a run directory with a report."""

import dataclasses
import math
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

import longflow
from longflow.bijections import Standardise, adapt
from longflow.commands.evaluate import fixed_draws, log_likelihoods, standard_error
from longflow.data import Dataset
from longflow.data import load as load_data
from longflow.distributions import Dequantised, Flow
from longflow.errors import TrainingDivergedError, UsageError, choose
from longflow.models import CATALOGUE, assemble
from longflow.objectives import MaximumLikelihood, NoisyLikelihood, Objective
from longflow.runs import Run
from longflow.training import Batches, Progress, Recipe, State, train
from longflow.training.device import prepare
from longflow.units import bits_per_dim

DEFAULT_STEPS = 3000
ADAPT_ROWS = 2048
STEPS_BETWEEN_VALIDATIONS = 50
SECONDS_BETWEEN_CHECKPOINTS = 60.0
SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class Settings:
    """What a training run is asked for, beside the model's own options and the recipe.

    Attributes:
        data: A name from `longflow list`, or a path.
        out: Run directory; by default runs/MODEL-DATA.
        epochs: Passes over the data; by default about 3,000 steps.
        steps: Optimiser steps, instead of --epochs.
        seed: Seed of weights, order and noise.
        device: auto, cpu, cuda, cuda:1, ...
        threads: CPU threads; by default all cores.
        resume: Go on with the run in --out, bit by bit as if it had not stopped.
        preset: Named options of the model, which flags override.
        levels: Requantise data with levels to so many (32 is Glow's 5 bits).
        preprocess: First bijection; by default unit for levels, standardise for continuous data.
        noise: Train on x + U[LOW, HIGH) in place of dequantised data.
        adapt: Initialise scales from a batch of data before the first step.
        patience: Stop after so many validations without improvement; 0 for never.
    """

    data: str = "digits"
    out: str | None = None
    epochs: int | None = None
    steps: int | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    resume: bool = False
    preset: str | None = None
    levels: int | None = None
    preprocess: Literal["unit", "centred", "logit", "standardise", "none"] | None = None
    noise: tuple[float, float] | None = None
    adapt: bool = True
    patience: int = 0


class Interrupted(Exception):
    """Training was stopped by the user; the run is saved."""

    def __init__(self, run: Run, step: int, steps: int) -> None:
        super().__init__(f"stopped at step {step} of {steps}; {run} is saved")
        self.run = run


def default_out(model: str, spec: str) -> str:
    """Return the run directory of a model and a data set (a name or a path) where none is named."""
    return str(Path("runs") / f"{model}-{Path(spec).stem}")


def train_run(name: str, settings: Settings, recipe: Recipe, options: Mapping[str, Any], *, command: str = "") -> Run:
    """Train the model `name` and return its run directory, in which the best weights are kept.

    Raises UsageError before anything is written where a setting is wrong, Interrupted after Ctrl-C (the run is
    saved and can be resumed), TrainingDivergedError when a loss is no longer finite.
    """
    device = prepare(settings.device, settings.threads)
    dataset = load_data(settings.data, settings.levels)
    config = {**configuration(name, settings, recipe, options, dataset), "command": command}
    torch.manual_seed(settings.seed)
    model = assemble(config)
    fit_units(model, dataset)
    with processes(device) as rank:
        run = _open(config, settings, rank)
        trainer = Trainer(run, config, dataset, model.to(device), rank)
        if settings.resume and run.checkpoint_file.is_file():
            trainer.take_up()
        else:
            trainer.begin()
        trainer.go()
    return run


def configuration(
    name: str, settings: Settings, recipe: Recipe, options: Mapping[str, Any], dataset: Dataset
) -> dict[str, Any]:
    """Return all that determines the run, as config.json keeps it."""
    choose("model", name, CATALOGUE)
    if settings.noise is not None and dataset.levels is None:
        raise UsageError("--noise expects data with levels; these are continuous")
    preprocess = settings.preprocess or ("standardise" if dataset.levels is None else "unit")
    per_epoch = max(1, dataset.sizes["train"] // recipe.batch)
    return {
        "longflow": longflow.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "model": name,
        "options": CATALOGUE[name].resolve(settings.preset, options),
        "shape": list(dataset.shape),
        "levels": dataset.levels,
        "preprocess": preprocess,
        "data": {
            "spec": settings.data,
            "name": dataset.name,
            "quantised": settings.levels,
            "sha256": dataset.sha256,
            "sizes": dict(dataset.sizes),
            "columns": None if dataset.columns is None else list(dataset.columns),
        },
        "noise": None if settings.noise is None else list(settings.noise),
        "adapt": settings.adapt,
        "recipe": dataclasses.asdict(recipe),
        "steps": _steps(settings, per_epoch),
        "patience": settings.patience,
        "seed": settings.seed,
    }


def _steps(settings: Settings, per_epoch: int) -> int:
    if settings.epochs is not None and settings.steps is not None:
        raise UsageError("expected --epochs or --steps, not both")
    for name, value in (("epochs", settings.epochs), ("steps", settings.steps)):
        if value is not None and value < 1:
            raise UsageError(f"expected --{name} >= 1; {value} came")
    epochs = settings.epochs or math.ceil(DEFAULT_STEPS / per_epoch)
    return settings.steps or epochs * per_epoch


def _open(config: dict[str, Any], settings: Settings, rank: int) -> Run:
    out = settings.out or default_out(config["model"], settings.data)
    if settings.resume:
        run = Run.open(out)
        _same(run, config)
    elif rank == 0:
        run = Run.create(out)
        run.write_config(config)
    return Run(out)


def _same(run: Run, config: dict[str, Any]) -> None:
    """Raise UsageError where a resumed run was started otherwise; more (or fewer) steps are written to config.json."""
    saved = run.config()
    for key in ("model", "options", "data", "levels", "preprocess", "noise", "adapt", "recipe", "patience", "seed"):
        if saved.get(key) != config[key]:
            raise UsageError(f"{run} was trained with {key} {saved.get(key)}; {config[key]} came with --resume")
    if saved["steps"] != config["steps"]:
        run.write_config({**saved, "steps": config["steps"]})


def fit_units(model: Flow | Dequantised, dataset: Dataset) -> None:
    """Set the mean and standard deviation of a first standardising layer from the training rows."""
    layers = [m for m in model.modules() if isinstance(m, Standardise) and m.loc.dim() > 0]
    for layer in layers:
        rows = dataset.split("train").astype(np.float64)
        axes = (0, *range(2, rows.ndim))
        layer.loc.copy_(torch.from_numpy(rows.mean(axes)).reshape(layer.loc.shape))
        layer.scale.copy_(torch.from_numpy(rows.std(axes)).reshape(layer.scale.shape))


class Trainer:
    """Draws from the loop: validates, keeps the best weights, writes metrics and checkpoints, shows progress."""

    def __init__(
        self, run: Run, config: dict[str, Any], dataset: Dataset, model: Flow | Dequantised, rank: int = 0
    ) -> None:
        self.run, self.config, self.dataset, self.rank = run, config, dataset, rank
        self.recipe = Recipe(**config["recipe"])
        self.objective = _objective(config)
        self.state = State(model, self.objective, self.recipe)
        rows = torch.from_numpy(dataset.split("train")).to(next(model.parameters()).device)
        world = dist.get_world_size() if dist.is_initialized() else 1
        self.batches = Batches(rows, None, self.recipe.batch, config["seed"], rank=rank, world=world)
        epochs = math.ceil(STEPS_BETWEEN_VALIDATIONS / self.batches.steps_per_epoch)
        self.interval = epochs * self.batches.steps_per_epoch
        self.log: dict[str, Any] = {"best": math.inf, "stale": 0, "losses": [], "seconds": 0.0}
        torch.manual_seed(config["seed"] + rank)

    def begin(self) -> None:
        """Start a new run (or one that stopped before its first checkpoint) from fresh weights."""
        self.run.cut_metrics(0)
        if self.config["adapt"]:
            with fixed_draws(self.config["seed"]):
                adapt(self.state.model, self._first_rows())
                self.state = State(self.state.model, self.objective, self.recipe)

    def _first_rows(self) -> Tensor:
        rows = self.batches.rows[: max(ADAPT_ROWS, self.recipe.batch)]
        return rows.to(next(self.state.model.parameters()))

    def take_up(self) -> None:
        """Go on from the last checkpoint."""
        saved = self.run.checkpoint()
        self.state.load_state_dict(saved["state"])
        self.log = saved["log"]
        self.run.cut_metrics(self.state.step)

    def go(self) -> None:
        """Train to the end, to a stop by patience, or to an interruption."""
        steps = self.config["steps"]
        saved = time.monotonic()
        if self._stale():
            return
        with stopping() as asked, self._bar(steps) as bar:
            for progress in self._steps(steps):
                bar.show(progress)
                last = progress.step == steps
                if progress.step % self.interval == 0 or last:
                    bar.validated(self._validate(progress, bar.rate()))
                    last = last or self._stale()
                if asked or last or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                    self._save()
                    saved = time.monotonic()
                if last:
                    return
                if asked:
                    raise Interrupted(self.run, progress.step, steps)

    def _steps(self, steps: int) -> Iterator[Progress]:
        loop = train(self.state, self.objective, self.batches, self.recipe, steps, self.batches.steps_per_epoch)
        try:
            for progress in loop:
                self.log["losses"].append(progress.loss)
                yield progress
        except TrainingDivergedError as error:
            if not self.run.checkpoint_file.is_file():
                self._save()
            raise TrainingDivergedError(f"{error}; the last good checkpoint is kept in {self.run}") from error

    def _validate(self, progress: Progress, rate: float) -> dict[str, Any]:
        model = cast(Flow | Dequantised, self.state.best_weights.eval())
        nats = log_likelihoods(model, self.dataset.split("validation"), seed=self.config["seed"])
        bits = bits_per_dim(torch.from_numpy(nats), self.dataset.dims).numpy()
        record = {
            "step": progress.step,
            "epoch": progress.epoch,
            "train_bits_per_dim": float(np.mean(self.log["losses"])),
            "validation_bits_per_dim": float(bits.mean()),
            "validation_stderr": standard_error(bits),
            "validation_nats": float(nats.mean()),
            "grad_norm": progress.grad_norm,
            "lr": progress.lr,
            "rows_per_s": rate,
        }
        self.log["losses"] = []
        better = record["validation_bits_per_dim"] < self.log["best"]
        self.log["best"] = min(self.log["best"], record["validation_bits_per_dim"])
        self.log["stale"] = 0 if better else self.log["stale"] + 1
        if self.rank == 0:
            if better or not self.run.weights_file.is_file():
                self.run.write_weights(model.state_dict())
            self.run.append_metrics(record)
        return {**record, "best": self.log["best"]}

    def _stale(self) -> bool:
        return 0 < self.config["patience"] <= self.log["stale"]

    def _save(self) -> None:
        if self.rank == 0:
            self.run.write_checkpoint({"state": self.state.state_dict(), "log": self.log})

    def _bar(self, steps: int) -> "Bar":
        return Bar(steps, self.state.step, self.batches, quiet=self.rank != 0)


class Bar:
    """The live progress: one line that rewrites itself on a terminal, a line now and then elsewhere."""

    def __init__(self, steps: int, done: int, batches: Batches, *, quiet: bool) -> None:
        self.rows = batches.batch
        self.epochs = math.ceil(steps / batches.steps_per_epoch)
        self.tty = sys.stderr.isatty() and not quiet
        self.quiet = quiet
        self.validation = ""
        self.loss = math.nan
        self.bar = tqdm(
            total=steps * self.rows, initial=done * self.rows, unit=" rows", unit_scale=True,
            disable=not self.tty, dynamic_ncols=True, leave=False,
            bar_format="{desc} {percentage:3.0f}%|{bar}| {rate_fmt}, {remaining} left{postfix}",
        )  # fmt: skip
        self.start, self.done, self.first = time.monotonic(), done, done
        self.steps = steps
        self.spoke = 0.0

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *raised: object) -> None:
        self.bar.close()

    def show(self, progress: Progress) -> None:
        """Count one step."""
        self.done = progress.step
        self.loss = progress.loss if math.isnan(self.loss) else 0.95 * self.loss + 0.05 * progress.loss
        self.bar.update(self.rows)
        self.bar.set_description_str(self._words(progress), refresh=False)
        if not self.tty and not self.quiet and (time.monotonic() - self.spoke > SECONDS_BETWEEN_LINES):
            self._speak(progress)

    def validated(self, record: Mapping[str, Any]) -> None:
        """Show the last validation from now on."""
        self.validation = f", validation {record['validation_bits_per_dim']:.4f} (best {record['best']:.4f})"

    def rate(self) -> float:
        """Return training rows a second since the start, validation included."""
        return (self.done - self.first) * self.rows / max(1e-9, time.monotonic() - self.start)

    def _words(self, progress: Progress) -> str:
        return f"epoch {progress.epoch}/{self.epochs}, loss {self.loss:.4f} bits/dim{self.validation}"

    def _speak(self, progress: Progress) -> None:
        rate = self.rate()
        left = (self.steps - self.done) * self.rows / rate
        print(f"{self._words(progress)}, {rate:,.0f} rows/s, {left:.0f} s left", file=sys.stderr, flush=True)
        self.spoke = time.monotonic()


@contextmanager
def stopping() -> Iterator[list[int]]:
    """Turn Ctrl-C and SIGTERM into a request, seen between two steps; a second one stops at once."""
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    kept = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


@contextmanager
def processes(device: torch.device) -> Iterator[int]:
    """Join the processes that torchrun started, and yield this one's rank; rank 0 without torchrun."""
    if "RANK" not in os.environ:
        yield 0
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield dist.get_rank()
    finally:
        dist.barrier()
        dist.destroy_process_group()


def _objective(config: Mapping[str, Any]) -> Objective:
    return MaximumLikelihood() if config["noise"] is None else NoisyLikelihood(*config["noise"])

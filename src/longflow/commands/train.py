"""Training a model on a data set, from nothing to a run directory with a report."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from longflow.adaptive import ADAPT_ROWS, has_statistics
from longflow.bijections import adapt, settle
from longflow.commands.configure import Settings, classifier_alone, configuration, default_out
from longflow.commands.evaluate import classified, log_likelihoods
from longflow.commands.prepare import (
    caution,
    check_batches,
    check_classifier,
    check_compiled,
    check_importance,
    check_negatives,
    classes_of,
    conditions_of,
    objective_of,
    units_of,
)
from longflow.commands.progress import Bar, names_of
from longflow.commands.represent import silent, validated
from longflow.commands.resume import check_same
from longflow.commands.watch import at_floor, bound_of, loss_of, parts_by_row, summary, warnings_of
from longflow.constraints import tighten
from longflow.data import Dataset
from longflow.data import load as load_data
from longflow.errors import TrainingDivergedError, UsageError
from longflow.families import Coder, Representation, RepresentationObjective
from longflow.models import assemble
from longflow.models.supported import fit_units
from longflow.runs import Run
from longflow.seeds import fixed_draws
from longflow.training import Batches, Progress, Recipe, State, train
from longflow.training.device import prepare
from longflow.training.processes import agreed, anywhere, processes, stopping, world_size
from longflow.units import bits_per_dim, counted, standard_error

STEPS_BETWEEN_VALIDATIONS = 50
VALIDATED_BY_ESTIMATES = 500
"""Validation rows where log-determinants are estimated, by dozens of passes each."""

SECONDS_BETWEEN_CHECKPOINTS = 60.0


class Interrupted(Exception):
    """Training was stopped by the user; the run is saved."""

    def __init__(self, run: Run, step: int, steps: int) -> None:
        super().__init__(f"stopped at step {step} of {steps}; {run} is saved")
        self.run = run


def train_run(
    name: str,
    settings: Settings,
    recipe: Recipe,
    options: Mapping[str, Any],
    objectives: Mapping[str, Any] | None = None,
    *,
    command: str = "",
) -> Run:
    """Train the model `name` and return its run directory, in which the best weights are kept.

    Raises UsageError before anything is written where a setting is wrong, Interrupted after Ctrl-C (the run is
    saved and can be resumed), TrainingDivergedError when a loss is no longer finite.
    """
    device = prepare(settings.device, settings.threads)
    dataset = load_data(settings.data, settings.levels, settings.context, settings.support)
    config = {**configuration(name, settings, recipe, options, dataset, objectives), "command": command}
    torch.manual_seed(settings.seed)
    model = assemble(config)
    config["likelihood"] = model.likelihood
    fit_units(model, *units_of(dataset))
    with processes(device) as rank:
        run = Run(settings.out or default_out(name, settings.data))
        check_batches(model, recipe.batch)
        check_classifier(model, config)
        check_compiled(model, config)
        check_negatives(model, config)
        check_importance(model, config)
        agreed(rank, lambda: _open(run, config, resume=settings.resume))
        trainer = Trainer(run, config, dataset, model.to(device), rank)
        if settings.resume and run.checkpoint_file.is_file():
            trainer.take_up()
        else:
            trainer.begin()
        trainer.go()
    return run


def _open(run: Run, config: dict[str, Any], *, resume: bool) -> None:
    if resume:
        check_same(Run.open(run.path), config)
    else:
        Run.create(run.path).write_config(config)


class Trainer:
    """Draws from the loop: validates, keeps the best weights, writes metrics and checkpoints, shows progress."""

    def __init__(self, run: Run, config: dict[str, Any], dataset: Dataset, model: Coder, rank: int = 0) -> None:
        self.run, self.config, self.dataset, self.rank = run, config, dataset, rank
        self.recipe = Recipe(**config["recipe"])
        self.objective = objective_of(config)
        self.names = names_of(config)
        self.state = State(model, self.objective, self.recipe)
        place = next(model.parameters()).device
        rows = torch.from_numpy(dataset.split("train")).to(place)
        given = conditions_of(config, dataset)
        context = None if given is None else torch.from_numpy(given).to(place)
        self.batches = Batches(rows, context, self.recipe.batch, config["seed"], rank=rank, world=world_size())
        epochs = math.ceil(STEPS_BETWEEN_VALIDATIONS / self.batches.steps_per_epoch)
        self.interval = epochs * self.batches.steps_per_epoch
        self.log: dict[str, Any] = {"best": math.inf, "stale": 0, "losses": [], "warned": []}
        torch.manual_seed(config["seed"] + rank)

    def begin(self) -> None:
        """Start a new run (or one that stopped before its first checkpoint) from fresh weights."""
        if self.rank == 0:
            self.run.cut_metrics(0)
            caution(self.dataset)
        if self.config["adapt"]:
            self._from_data(adapt, self.state.model)

    def _from_data(
        self, take: Callable[[torch.nn.Module, Tensor, Tensor | None], None], model: torch.nn.Module
    ) -> None:
        """Let a model take its scales or its statistics from the same training rows whenever it is asked."""
        with fixed_draws(self.config["seed"]):
            take(model, *self._some_rows())

    def _some_rows(self) -> tuple[Tensor, Tensor | None]:
        """Return some rows and their contexts; classes are no context of a density here."""
        chosen = torch.randperm(len(self.batches.rows))[:ADAPT_ROWS]
        rows = self.batches.rows[chosen].to(next(self.state.model.parameters()))
        contexts = self.batches.context if self.dataset.contexts else None
        return rows, None if contexts is None else contexts[chosen].to(rows)

    def take_up(self) -> None:
        """Go on from the last checkpoint."""
        saved = self.run.checkpoint()
        try:
            self.state.load_state_dict(saved["state"])
            self.log |= dict(saved["log"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            what = f"{self.run.checkpoint_file} is not a checkpoint of this run"
            raise UsageError(f"{what} ({(str(error) or repr(error)).splitlines()[0]})") from error
        if self.config["steps"] < self.state.step:
            raise UsageError(
                f"{self.run} has done {counted(self.state.step, 'step')} already; {self.config['steps']} came"
            )
        if self.rank == 0:
            self.run.write_config({**self.run.config(), "steps": self.config["steps"]})
            self.run.cut_metrics(self.state.step)
        else:
            key = np.random.SeedSequence((self.config["seed"], self.rank, self.state.step))
            torch.manual_seed(int(key.generate_state(1)[0]))

    def go(self) -> None:
        """Train to the end, to a stop by patience, or to an interruption."""
        steps = self.config["steps"]
        saved = time.monotonic()
        if self._stale():
            return
        if self.config["compile"]:
            self.state.model.compile()
        with stopping() as asked, self._bar(steps) as bar:
            for progress in self._steps(steps):
                bar.show(progress)
                last = progress.step == steps
                if progress.step % self.interval == 0 or last:
                    bar.validated(self._validate(progress, bar.rate()))
                    last = last or self._stale()
                stop = anywhere(bool(asked))
                if stop or last or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                    self._save()
                    saved = time.monotonic()
                if last:
                    return
                if stop:
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
        model = cast(Coder, self.state.best_weights.eval())
        tighten(model)
        if has_statistics(model):
            self._from_data(settle, model)
        record = {
            "step": progress.step,
            "epoch": progress.epoch,
            self.names.train: float(np.mean(self.log["losses"])),
            **self._measured(model),
            "grad_norm": progress.grad_norm,
            "lr": progress.lr,
            "rows_per_s": rate,
        }
        self.log["losses"] = []
        better = record[self.names.validation] < self.log["best"]
        self.log["best"] = min(self.log["best"], record[self.names.validation])
        self.log["stale"] = 0 if better else self.log["stale"] + 1
        if self.rank == 0:
            if better or not self.run.weights_file.is_file():
                self.run.write_weights(model.state_dict())
            self.run.append_metrics(record)
        return {**record, "best": self.log["best"]}

    def _measured(self, model: Coder) -> Mapping[str, float | None]:
        """Return what a model is worth on validation rows: bits/dim or, for a classifier alone, its cross-entropy.

        A representation is worth what its objective says; so is what has a likelihood that costs too much.
        """
        rows, events = self.dataset.split("validation"), self.dataset.events("validation")
        if isinstance(model, Representation):
            objective = cast(RepresentationObjective, self.objective)
            classes = classes_of(self.config, self.dataset, "validation")
            found = validated(model, objective, rows, classes, self.config["seed"])
            self._warn(silent(found))
            return found
        if classifier_alone(self.config):
            assert self.dataset.labels is not None
            return classified(model, rows, self.dataset.labels["validation"], self.config["seed"])
        if model.estimates:
            events = events[:VALIDATED_BY_ESTIMATES]
        seed = self.config["seed"]
        by_row = parts_by_row(model, events, seed)
        parts = self._watched(by_row, at_floor(model, events))
        if self.names.validation == "validation_loss":
            return {"validation_loss": loss_of(self.objective, model, events, seed), **parts}
        nats = bound_of(by_row) if "kl" in by_row else log_likelihoods(model, events, seed=seed)
        bits = bits_per_dim(torch.from_numpy(nats), self.dataset.dims).numpy()
        return {
            "validation_bits_per_dim": float(bits.mean()),
            "validation_stderr": standard_error(bits),
            "validation_nats": float(nats.mean()),
            **parts,
        }

    def _watched(self, by_row: Mapping[str, Tensor], floored: float) -> dict[str, float]:
        """Return the means of the parts of an autoencoder's bound; warn of what is wrong."""
        parts = summary(by_row)
        self._warn(warnings_of(parts, floored))
        return {f"validation_{name}": value for name, value in parts.items()}

    def _warn(self, lines: list[str]) -> None:
        """Say what is wrong, once each, after half of the run."""
        early = self.state.step < self.config["steps"] / 2
        for told in [] if early or self.rank else lines:
            if told.split(":")[0] not in self.log["warned"]:
                self.log["warned"].append(told.split(":")[0])
                print(f"longflow: {told}", file=sys.stderr)

    def _stale(self) -> bool:
        return 0 < self.config["patience"] <= self.log["stale"]

    def _save(self) -> None:
        if self.rank == 0:
            self.run.write_checkpoint({"state": self.state.state_dict(), "log": self.log})

    def _bar(self, steps: int) -> "Bar":
        return Bar(steps, self.state.step, self.batches, self.names, quiet=self.rank != 0)

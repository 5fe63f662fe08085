"""The command line: it translates and calls, nothing else. A command's signature and docstring are its flags."""

import contextlib
import dataclasses
import inspect
import io
import json
import os
import re
import shlex
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from itertools import dropwhile, takewhile
from typing import Annotated, Any

import docstring_parser
import tyro
from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from longflow import data
from longflow.commands.check import check
from longflow.commands.cluster import cluster
from longflow.commands.configure import Settings, default_out
from longflow.commands.datasets import context_of
from longflow.commands.diagnose import diagnose
from longflow.commands.draw import reconstruct, sample
from longflow.commands.edit import edit
from longflow.commands.evaluate import evaluate
from longflow.commands.inpaint import inpaint
from longflow.commands.interpolate import interpolate, manifold
from longflow.commands.neighbours import neighbours
from longflow.commands.probe import probe
from longflow.commands.quality import quality
from longflow.commands.report import report
from longflow.commands.resume import supports_of
from longflow.commands.scales import latents, resample
from longflow.commands.score import score
from longflow.commands.sizes import sizes
from longflow.commands.train import Interrupted, train_run
from longflow.commands.traverse import traverse
from longflow.errors import IntegrationError, InversionError, TrainingDivergedError, UsageError, choose, nearest
from longflow.files import finite
from longflow.models import CATALOGUE, Model
from longflow.runs import Run
from longflow.training import Recipe
from longflow.words import (
    Result,
    check_words,
    cluster_words,
    diagnose_words,
    evaluate_words,
    list_words,
    probe_words,
    quality_words,
    rows,
    sizes_words,
    train_words,
    wrote_words,
)

Field = tuple[str, Any, Any]

REPEATED = ("support",)
"""Flags that are given anew for each value."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0 when it is done, 2 for the user's mistake, 1 for ours or a failed check."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [a for a in given if a != "--debug"]
    try:
        return _dispatch(given)
    except UsageError as error:
        return _stop(2, str(error), debug=debug)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        return _stop(2, f"cannot read or write{where}: {error.strerror or error}", debug=debug)
    except Interrupted as error:
        return _stop(
            130,
            f"{error}; go on with: longflow train {given[1]} --out {shlex.quote(str(error.run))} --resume",
            debug=debug,
        )
    except KeyboardInterrupt:
        return _stop(130, "interrupted", debug=debug)
    except (TrainingDivergedError, InversionError, IntegrationError) as error:
        return _stop(1, str(error), debug=debug)
    except Exception as error:
        return _stop(1, f"a fault of longflow's ({type(error).__name__}: {error}); --debug shows where", debug=debug)


def _stop(status: int, message: str, *, debug: bool) -> int:
    if debug:
        raise
    if os.environ.get("RANK", "0") == "0":
        print(f"longflow: {' '.join(message.split())}", file=sys.stderr)
    return status


def _dispatch(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help"):
        print(_usage())
        return 0 if given else 2
    if given[0] == "--version":
        from longflow import __version__

        print(__version__)
        return 0
    name = choose("command", given[0], ["train", *COMMANDS])
    return train(given[1:]) if name == "train" else _call(name, given[1:])


def _call(name: str, given: list[str]) -> int:
    command, words = COMMANDS[name]
    flags = parse([*fields_of(command), JSON_FIELD], given, name, inspect.getdoc(command) or "")
    as_json = flags.pop("json")
    result = command(**flags)
    _show(result, words, as_json=as_json)
    return 0 if result.get("passed", True) else 1


def train(given: list[str]) -> int:
    """Train a model: its own options, the settings and the recipe are one list of flags."""
    if not given or given[0] in ("-h", "--help"):
        print(f"usage: longflow train MODEL [--flags]; longflow train MODEL --help\n\nMODEL: {', '.join(CATALOGUE)}")
        return 0 if given else 2
    name = choose("model", given[0], CATALOGUE)
    model = CATALOGUE[name]
    own = [f for f in fields_of(model.builder) if f[0] not in ("shape", "levels", "context")]
    aims = fields_of(model.objective) if model.objective else []
    fields = [*fields_of(Settings), *own, *aims, *fields_of(Recipe), JSON_FIELD]
    presets = ", ".join(model.presets) or "none"
    about = (inspect.getdoc(model.builder) or "").split("\n\nArgs:")[0] + f"\n\nPresets: {presets}."
    flags = parse(_with_saved(fields, name, given[1:]), given[1:], f"train {name}", about)
    if flags["resume"]:
        flags["support"] = supports_of(Run.open(flags["out"] or default_out(name, flags["data"])), flags["support"])
    options = _options_given(model, flags, own, given[1:])
    settings = Settings(**{f.name: flags[f.name] for f in dataclasses.fields(Settings)})
    recipe = Recipe(**{f.name: flags[f.name] for f in dataclasses.fields(Recipe)})
    aim = {aimed: flags[aimed] for aimed, _, _ in aims}
    run = train_run(name, settings, recipe, options, aim, command=shlex.join(["longflow", "train", *given]))
    if int(os.environ.get("RANK", "0")) == 0:
        print("longflow: trained; now the test split and the report", file=sys.stderr, flush=True)
    result = report(str(run.path), device=settings.device) if int(os.environ.get("RANK", "0")) == 0 else {}
    if result:
        _show(result, train_words, as_json=flags["json"])
    return 0


def _options_given(
    model: Model, flags: Mapping[str, Any], own: Sequence[Field], given: Sequence[str]
) -> dict[str, Any]:
    """Return the model's options that were on the command line (a preset sets the others), or, resuming, all of them.

    A run that is resumed with a preset must have had that preset: the caller compares.
    """
    flagged = [a.split("=")[0] for a in given if a.startswith("--")]
    named = {a.removeprefix("--no-").removeprefix("--").replace("-", "_") for a in flagged}
    explicit = {name: flags[name] for name, _, _ in own if name in named}
    if not flags["resume"]:
        return explicit
    saved = {name: flags[name] for name, _, _ in own}
    return {**saved, **model.preset(flags["preset"]), **explicit}


def _with_saved(fields: list[Field], model: str, given: Sequence[str]) -> list[Field]:
    """With --resume, take what the run was started with as the defaults, so that flags need not be repeated."""
    if "--resume" not in given:
        return fields
    flags = parse(fields, given, f"train {model}", "")
    config = Run.open(flags["out"] or default_out(model, flags["data"])).config()
    if "recipe" not in config:
        raise UsageError(f"{flags['out']} holds a model that was not trained here: there is nothing to resume")
    if config["model"] != model:
        raise UsageError(f"{flags['out']} holds a run of '{config['model']}'; '{model}' came with --resume")
    kept = {k: config[k] for k in ("steps", "seed", "preprocess", "patience", "adapt", "device", "threads")}
    for later in ("label_weight", "density_weight", "compile"):
        kept[later] = config.get(later, getattr(Settings, later))
    kept |= {"data": config["data"]["spec"], "levels": config["data"]["quantised"]}
    kept |= {"noise": config["noise"] and tuple(config["noise"])} | config["options"] | config["recipe"]
    kept |= config.get("objective") or {}
    kept |= {"context": context_of(config)} | (config.get("embedding") or {})
    if any(a.split("=")[0] == "--epochs" for a in given):
        del kept["steps"]
    return [(name, kind, kept.get(name, default)) for name, kind, default in fields]


def fields_of(function: Callable[..., Any]) -> list[Field]:
    """Return (name, annotated type, default) of each argument, with its help from the docstring."""
    docs = {p.arg_name: p.description for p in docstring_parser.parse(inspect.getdoc(function) or "").params}
    hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    return [_field(p, hints[p.name], docs.get(p.name) or "") for p in inspect.signature(function).parameters.values()]


def _field(parameter: inspect.Parameter, kind: Any, help_text: str) -> Field:
    name, default = parameter.name, parameter.default
    aliases = [f"-{name}"] if len(name) == 1 else None
    if default is parameter.empty:
        return name, Annotated[kind, Positional, arg(help=help_text, metavar=name.upper())], dataclasses.MISSING
    if kind is bool and default is False:
        kind = Annotated[bool, FlagCreatePairsOff]
    if name in REPEATED:
        kind = Annotated[kind, UseAppendAction]
    return name, Annotated[kind, arg(help=help_text, aliases=aliases)], default


JSON_FIELD = _field(
    inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False),
    bool,
    "Print one JSON object on stdout and nothing else.",
)


def parse(fields: Sequence[Field], given: Sequence[str], name: str, about: str) -> dict[str, Any]:
    """Parse flags by tyro; raise UsageError of one line where it finds fault."""
    form = dataclasses.make_dataclass(
        "Flags",
        [(n, kind, dataclasses.field(default=default)) for n, kind, default in fields],
        kw_only=True,
    )
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            flags: Any = tyro.cli(
                form, args=list(given), prog=f"longflow {name}", description=about.split("\n\nArgs:")[0]
            )
    except SystemExit as stop:
        if stop.code:
            raise UsageError(_condensed(complaint.getvalue(), name)) from None
        raise
    return dataclasses.asdict(flags)


def _condensed(complaint: str, name: str) -> str:
    """Turn tyro's box, or its lines between rules in a terminal of ASCII, into one: what is wrong, what was meant."""
    lines = [line.strip("│╭╮╰╯─ ") for line in complaint.splitlines()[1:]]
    wrong = " ".join(takewhile(lambda line: not _is_rule(line), dropwhile(_is_rule, lines))).replace(" .", ".")
    wrong = wrong.rstrip(".")
    meant = re.search(r"Perhaps you meant:\s+(-[\w-]+)", " ".join(lines))
    told = f"; did you mean {meant[1]}?" if meant else ""
    choice = re.search(r"invalid choice '(.*?)' for .* one of \((.*)\)", wrong)
    if choice:
        told = nearest(choice[1], re.findall(r"'(.*?)'", choice[2]))
    return f"{wrong or complaint}{told} (see longflow {name} --help)"


def _is_rule(line: str) -> bool:
    return not line.strip("-")


def _show(result: Result, words: Callable[[Result], str], *, as_json: bool) -> None:
    print(json.dumps(finite(result), allow_nan=False) if as_json else words(result), flush=True)


def list_all() -> Result:
    """Show the models and the data sets, one line each."""
    models = {name: model.about for name, model in CATALOGUE.items()}
    return {"models": models, "data": {name: source.about for name, source in data.CATALOGUE.items()}}


COMMANDS: dict[str, tuple[Callable[..., Result], Callable[[Result], str]]] = {
    "list": (list_all, list_words),
    "sizes": (sizes, sizes_words),
    "evaluate": (evaluate, evaluate_words),
    "quality": (quality, quality_words),
    "diagnose": (diagnose, diagnose_words),
    "score": (score, wrote_words),
    "sample": (sample, wrote_words),
    "reconstruct": (reconstruct, wrote_words),
    "interpolate": (interpolate, wrote_words),
    "manifold": (manifold, wrote_words),
    "traverse": (traverse, wrote_words),
    "neighbours": (neighbours, wrote_words),
    "edit": (edit, wrote_words),
    "resample": (resample, wrote_words),
    "latents": (latents, wrote_words),
    "inpaint": (inpaint, wrote_words),
    "check": (check, check_words),
    "probe": (probe, probe_words),
    "cluster": (cluster, cluster_words),
    "report": (report, train_words),
}


def _usage() -> str:
    about = {"train": "Train a model on a data set: longflow train MODEL [--data digits] [--out RUN] ..."}
    about |= {name: (inspect.getdoc(command) or "").split("\n")[0] for name, (command, _) in COMMANDS.items()}
    head = "usage: longflow COMMAND ... (longflow COMMAND --help shows its flags; --debug shows tracebacks)"
    return "\n".join([head, "", *rows(about)])

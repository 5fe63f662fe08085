"""Extractors made from a data set, and kept in a folder: the same data, kind and seed find the same features again."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load, save

from longflow.errors import UsageError, choose
from longflow.files import write_bytes, write_json
from longflow.quality.features import LEAST_SIDE, Classifier, Extractor, Material, RandomConvolutions, Whitening
from longflow.quality.inception import Inception

STEPS = 1000
BATCH = 64
RATE = 5e-3

Facts = dict[str, Any]


def likely_kinds(material: Material) -> tuple[str, ...]:
    """Return the kinds that suit: for pictures random convolutions, with a classifier if there are labels; else PCA.

    Of the two the classifier sees missing classes and hardly sees blur, which random convolutions see at once.
    """
    if not _pictures(material):
        return ("pca",)
    return ("random",) if material.labels is None else ("classifier", "random")


def extractor_of(
    material: Material, kind: str, folder: Path, *, seed: int = 0, device: str | torch.device = "cpu"
) -> tuple[Extractor, Facts]:
    """Return features of that kind, made from the data or read from the folder, and what is to be said of them.

    Args:
        material: the data set.
        kind: "classifier", "random" (convolutions), "pca", or "inception".
        folder: where extractors are kept, as NAME.safetensors and NAME.json.
        seed: of the weights' start and the order of batches.
        device: where to make it and to leave it.

    Raises:
        UsageError: the data do not suit the kind, or a file of the folder is damaged or not what its name says.
    """
    choose("extractor", kind, [*MAKERS, "inception"])
    asked: Facts = {
        "kind": kind,
        "shape": list(material.shape),
        "data_sha256": material.sha256,
        "labels_sha256": material.labels_sha256 if kind == "classifier" else None,
        "seed": seed,
        "steps": STEPS if kind == "classifier" else None,
    }
    if kind == "inception":
        # Its weights are in a folder of their own already.
        found = Inception.at_hand(material.shape, material.levels).to(device)
        return found, {**asked, "name": found.name, "sha256": found.sha256}
    _check(material, kind)
    path = folder / f"{kind}-{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]}"
    if path.with_suffix(".json").is_file():
        return read(path, asked, device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made, measured = MAKERS[kind](material, seed, torch.device(device))
    facts = {**asked, "name": made.name, **measured, "sha256": made.sha256}
    weights = {name: value.cpu().contiguous() for name, value in made.state_dict().items()}
    # Two commands at once make the same extractor; neither may read half of the other's.
    write_bytes(path.with_suffix(".safetensors"), save(weights))
    write_json(path.with_suffix(".json"), facts)
    return made, facts


def read(path: Path, asked: Facts, device: str | torch.device = "cpu") -> tuple[Extractor, Facts]:
    """Read an extractor and its facts; raise UsageError unless it is what is asked for, and whole."""
    try:
        facts = json.loads(path.with_suffix(".json").read_text())
        weights = load(path.with_suffix(".safetensors").read_bytes())
    except (ValueError, OSError, SafetensorError) as error:
        raise UsageError(f"the extractor {path} is damaged; remove it ({error})") from error
    for key, value in asked.items():
        if facts.get(key) != value:
            raise UsageError(f"the extractor {path} is of {key} {facts.get(key)}; {value} is asked for")
    made = _empty(facts["kind"], tuple(facts["shape"]), weights)
    if made.sha256 != facts["sha256"]:
        raise UsageError(f"the extractor {path} is damaged; remove it (its weights are not those it was stored with)")
    return made.to(device), facts


def _empty(kind: str, shape: tuple[int, ...], weights: dict[str, torch.Tensor]) -> Extractor:
    made: Extractor
    if kind == "classifier":
        made = Classifier(shape, len(weights["last.bias"]))
    elif kind == "random":
        made = RandomConvolutions(shape)
    else:
        made = Whitening(shape, weights["directions"].shape[1])
    made.load_state_dict(weights)
    return made.eval()


def _pictures(material: Material) -> bool:
    return len(material.shape) == 3 and min(material.shape[1:]) >= LEAST_SIDE


def _check(material: Material, kind: str) -> None:
    if kind in ("classifier", "random") and not _pictures(material):
        raise UsageError(
            f"--extractor {kind} expects pictures (C, H, W) of sides >= {LEAST_SIDE}; rows of {material.shape} came"
        )
    if kind == "classifier" and (material.labels is None or len(np.unique(material.labels)) < 2):
        raise UsageError(
            "--extractor classifier expects labels of at least two classes; the data have none (try random)"
        )


def _classifier(material: Material, seed: int, device: torch.device) -> tuple[Extractor, Facts]:
    assert material.labels is not None
    model = Classifier(material.shape, int(material.labels.max()) + 1).to(device)
    model.fit_pixels(material.train)
    optimiser = torch.optim.Adam(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    random = np.random.default_rng(seed)
    order = np.empty(0, dtype=np.intp)
    for _ in range(STEPS):
        if len(order) < BATCH:
            order = np.concatenate([order, random.permutation(len(material.train))])
        rows, order = order[:BATCH], order[BATCH:]
        x = torch.as_tensor(material.train[rows]).to(device, torch.float32)
        loss = F.cross_entropy(model.logits(x), torch.as_tensor(material.labels[rows]).to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    model.eval().requires_grad_(requires_grad=False)
    model.fit_features(material.train)
    known = material.test_labels is not None and len(material.test) > 0
    return model, {
        "test_accuracy": float((model.classes(material.test) == material.test_labels).mean()) if known else None
    }


def _random(material: Material, seed: int, device: torch.device) -> tuple[Extractor, Facts]:
    model = RandomConvolutions(material.shape).to(device).requires_grad_(requires_grad=False)
    model.fit(material.train)
    return model.eval(), {}


def _whitening(material: Material, seed: int, device: torch.device) -> tuple[Extractor, Facts]:
    return Whitening.fitted(material.train).to(device), {}


MAKERS: dict[str, Callable[[Material, int, torch.device], tuple[Extractor, Facts]]] = {
    "classifier": _classifier,
    "random": _random,
    "pca": _whitening,
}

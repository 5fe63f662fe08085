"""The floors: a room imports only rooms below it (ARCHITECTURE.md)."""

import ast
from pathlib import Path

import longflow

ROOT = Path(longflow.__file__).parent
FLOORS = {
    "errors": -1, "values": -1, "units": 0, "adaptive": 0, "constraints": 0, "volume": 0, "seeds": 0, "files": 0,
    "nets": 1, "objectives": 1, "training": 1, "data": 1, "runs": 1, "figures": 1, "report": 1, "baselines": 1,
    "words": 1, "quality": 1,
    "bijections": 2, "distributions": 3, "anomaly": 4, "families": 4, "models": 5, "commands": 6, "inference": 6,
    "cli": 7, "sklearn": 7, "sbi": 7, "__main__": 8,
}  # fmt: skip


def room(file):
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from [a.name.split(".")[1] for a in node.names if a.name.startswith("longflow.")]
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("longflow"):
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names if alias.name in FLOORS]


def test_rooms_import_only_rooms_below_or_themselves():
    wrong = []
    for file in ROOT.rglob("*.py"):
        if file.parent == ROOT and file.name == "__init__.py":
            continue
        here = room(file)
        for there in imports(file):
            ground = FLOORS[here] == FLOORS[there] == 1 and (here, there) in {("training", "objectives")}
            if there != here and FLOORS[there] >= FLOORS[here] and not ground:
                wrong.append(f"{file.relative_to(ROOT)} imports {there}")
    assert not wrong


def test_files_are_short():
    long = {str(f.relative_to(ROOT)): n for f in ROOT.rglob("*.py") if (n := len(f.read_text().splitlines())) > 300}
    assert not long


def test_the_library_imports_without_the_command_line():
    """The door's libraries are imported in the door only, so that the library works where they are missing."""
    users = [f.name for f in ROOT.rglob("*.py") if "import tyro" in f.read_text()]
    assert users == ["cli.py"]

"""How the suites knock at the command line."""

import json

from longflow.cli import main


def answer(capsys, *arguments, status=0):
    """Run a command with --json; return the one JSON object that it prints on one line of stdout."""
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == status
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    return json.loads(told)


def refused(capsys, *arguments):
    """Run a command that must end with status 2; return the one line that it says on stderr."""
    capsys.readouterr()
    assert main([*map(str, arguments)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told

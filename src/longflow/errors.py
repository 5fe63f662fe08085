"""The ways in which longflow stops on purpose."""

import difflib
from collections.abc import Iterable


class UsageError(ValueError):
    """The caller's mistake, told in one line: what was expected and what came. The command line exits with 2."""


class TrainingDivergedError(RuntimeError):
    """A loss or gradient stopped being finite; the message names the step and the offending layer."""


class InversionError(RuntimeError):
    """An inverse by iteration did not converge; the message names the rows of the batch and the error left.

    `rows` are their indices, `errors` the bounds on |x - x*| that were reached.
    """

    def __init__(self, message: str, rows: list[int], errors: list[float]) -> None:
        super().__init__(message, rows, errors)
        self.rows, self.errors = rows, errors

    def __str__(self) -> str:
        return str(self.args[0])


class IntegrationError(RuntimeError):
    """A differential equation could not be solved to the tolerance asked for."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known word nearest to `word`, or "" when none is near."""
    close = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def choose(kind: str, word: str, known: Iterable[str]) -> str:
    """Return `word` if it is one of `known`; raise UsageError naming the nearest valid one otherwise."""
    names = list(known)
    if word in names:
        return word
    raise UsageError(f"unknown {kind} '{word}'{nearest(word, names)} (known: {', '.join(names)})")

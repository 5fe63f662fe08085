"""The checks that builders share."""

from typing import Any

from longflow.errors import UsageError


def at_least(model: str, least: int, **options: Any) -> None:
    """Raise UsageError unless each option is a whole number of at least `least`; None is left to the builder."""
    for name, value in options.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise UsageError(f"{model} expects {name} to be a whole number, {name} >= {least}; {value!r} came")

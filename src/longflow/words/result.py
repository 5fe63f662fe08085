"""What commands return, for people to read as lines of text."""

from typing import Any

Result = dict[str, Any]

"""Records, one a line: JSON, or Python dicts as in the metadata of Amazon 2014."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

Record = Mapping[str, Any]


def from_json(line: str) -> Record:
    """Return the record of a line of JSON."""
    try:
        found = json.loads(line)
    except RecursionError:
        raise ValueError("brackets within brackets without end") from None
    if not isinstance(found, dict):
        raise ValueError("no record, as {...} is")
    return found


def from_json_or_literal(line: str) -> Record:
    """Return the record of a line of JSON, or of a Python dict, which is read and never run."""
    try:
        return from_json(line)
    except ValueError:
        pass
    try:
        found = ast.literal_eval(line)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise ValueError("neither JSON nor a Python dict") from None
    if not isinstance(found, dict):
        raise ValueError("no record, as {...} is")
    return found

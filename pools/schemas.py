"""JSON Schemas of workloads' configs. They are self-contained, and nothing is fetched.

Schemas and the values checked by them are processed by ``schema_program``, in separate processes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boilerhouse.core.errors import FieldError
from boilerhouse.process.apart import Apart, TooMuch

SAVING = "schemas"
"""The asker for questions about schemas themselves: all operators together."""
_apart = Apart(Path(__file__).with_name("schema_program.py"))


class Unusable(Exception):
    """No value can be checked against the schema."""


def warm() -> None:
    _apart.warm()


def problem(schema: Any) -> FieldError | None:
    """Why no value can be checked against ``schema``, with a pointer into it; None if it is usable. Raises NoPlace,
    Spent."""
    try:
        found = _apart.ask({"problem": schema}, SAVING)
    except TooMuch:
        return FieldError("", "Checking the schema takes more than a second of processor time.", "schema")
    return FieldError(*found) if found else None


def errors(schema: Any, values: Sequence[Any], asker: str) -> list[list[FieldError]]:
    """The errors of each value by ``schema``, with pointers into it. Raises Unusable, TooMuch, NoPlace, Spent."""
    found = _apart.ask({"schema": json.dumps(schema), "values": list(values)}, asker)
    if "unusable" in found:
        raise Unusable(found["unusable"])
    return [[FieldError(*one) for one in errors] for errors in found["errors"]]

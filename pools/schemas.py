"""JSON Schemas of workloads' configs: everything that one refers to is in it, and nothing is fetched.

What is checked by them, and they themselves, are looked at by ``schema_program``, in processes of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boilerhouse.core.errors import FieldError
from boilerhouse.process.apart import Apart, TooMuch

SAVING = "schemas"
"""Who asks about schemas themselves: operators, all as one."""
_apart = Apart(Path(__file__).with_name("schema_program.py"))


class Unusable(Exception):
    """Nothing can be checked against the schema."""


def warm() -> None:
    _apart.warm()


def problem(schema: Any) -> FieldError | None:
    """Why nothing can be checked against ``schema``, with a pointer into it; None if it can. Raises NoPlace, Spent."""
    try:
        found = _apart.ask({"problem": schema}, SAVING)
    except TooMuch:
        return FieldError("", "It takes more than a second of processor time to look at it.", "schema")
    return FieldError(*found) if found else None


def errors(schema: Any, values: Sequence[Any], asker: str) -> list[list[FieldError]]:
    """What ``schema`` has against each value, with pointers into it. Raises Unusable, TooMuch, NoPlace, Spent."""
    found = _apart.ask({"schema": json.dumps(schema), "values": list(values)}, asker)
    if "unusable" in found:
        raise Unusable(found["unusable"])
    return [[FieldError(*one) for one in errors] for errors in found["errors"]]

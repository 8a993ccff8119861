"""JSON Schemas of workloads' configs. They are self-contained, and nothing is fetched.

Schemas and the values checked by them are processed by ``schema_program``, in separate processes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from boilerhouse.core.errors import FieldError
from boilerhouse.process.subprocess_pool import LimitExceeded, SubprocessPool

SAVING = "schemas"
"""The asker for questions about schemas themselves: all operators together."""
_pool_of_processes = SubprocessPool(Path(__file__).with_name("schema_program.py"))


class Unusable(Exception):
    """No value can be checked against the schema."""


def warm() -> None:
    _pool_of_processes.warm()


def problem(schema: Any) -> FieldError | None:
    """Why no value can be checked against ``schema``, with a pointer into it; None if it is usable.

    Raises NoFreeProcess, AllowanceSpent.
    """
    try:
        reply = _pool_of_processes.ask({"problem": schema}, SAVING)
    except LimitExceeded:
        return FieldError("", "Checking the schema takes more than a second of processor time.", "schema")
    return FieldError(*reply) if reply else None


def errors(schema: Any, values: Sequence[Any], asker: str) -> list[list[FieldError]]:
    """The errors of each value by ``schema``, with pointers into it.

    Raises Unusable, LimitExceeded, NoFreeProcess, AllowanceSpent.
    """
    reply = _pool_of_processes.ask({"schema": json.dumps(schema), "values": list(values)}, asker)
    if "unusable" in reply:
        raise Unusable(reply["unusable"])
    return [[FieldError(*error) for error in errors] for errors in reply["errors"]]

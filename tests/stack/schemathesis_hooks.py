"""Adds the values of ``tests.dictionary`` to the bodies, queries and headers of generated requests."""

from __future__ import annotations

import itertools
import os
from typing import Any

import schemathesis

from tests.dictionary import NASTY, QUERY, TAKEN, places, replaced

EACH = 3 if os.environ.get("BOILERHOUSE_LONG") else 1
"""Values that each place of a body gets; from one place to the next they go on in the dictionary. All of them in each place
are tried by ``tests/core/test_fuzz.py``."""
_values = itertools.cycle(one for one in (*NASTY, *TAKEN) if one != "\ud800")  # which is no UTF-8 to send
WAIT = ("/claim", "/release", "/exec", "/commands", "/sync", "/trigger", "/probe")
"""They do much, or wait, where a value is no fault; their bodies are asked for in ``tests/core/test_fuzz.py``."""
CREDENTIALS = ("Authorization", "Idempotency-Key")

schemathesis.serializer.alias("application/x-tar", "application/octet-stream")


@schemathesis.hook
def before_add_examples(context: Any, examples: list[Any]) -> None:
    operation = context.operation
    if not examples and "{" not in operation.path:
        examples.append(operation.Case())
    if examples and operation.method.upper() == "GET":
        examples += _asked_otherwise(operation, examples[0])
    elif examples and isinstance(examples[0].body, dict) and not operation.path.endswith(WAIT):
        examples += _bodies(operation, examples[0])


def _asked_otherwise(operation: Any, example: Any) -> list[Any]:
    found = []
    for parameter, value in itertools.product(operation.query, QUERY):
        if (parameter.name, value) == ("follow", "true"):
            continue  # it goes on until its container ends
        query = {**(example.query or {}), parameter.name: value}
        found.append(operation.Case(path_parameters=example.path_parameters, query=query))
    for parameter, value in itertools.product(operation.headers, QUERY):
        if parameter.name not in CREDENTIALS and value.isascii() and value.isprintable():
            headers = {**(example.headers or {}), parameter.name: value}
            found.append(operation.Case(path_parameters=example.path_parameters, headers=headers))
    return found


def _bodies(operation: Any, example: Any) -> list[Any]:
    return [
        operation.Case(
            path_parameters=example.path_parameters,
            body=replaced(example.body, at, value),
            media_type=example.media_type,
        )
        for at in places(example.body)
        for value in itertools.islice(_values, EACH)
    ]

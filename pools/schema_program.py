"""Validates values against JSON Schemas: a separate program without Django, started by ``schema_processes``.

It reads one question per line and writes one answer per line. The kernel ends it if one question takes more than
``PROCESSOR_S`` of processor time, or if it uses more than ``MEMORY_BYTES``: a schema and a value of a few lines can
cause years of work.
"""

from __future__ import annotations

import itertools
import json
import resource
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import jsonschema_rs
from referencing import Registry, Resource
from referencing.exceptions import CannotDetermineSpecification, Unresolvable
from referencing.jsonschema import DRAFT202012

PROCESSOR_S = 1.0
MEMORY_BYTES = 512 << 20
MAX_ERRORS, MAX_WORDS = 100, 300
"""Characters of a value, and of an error."""
REFERENCES = ("$ref", "$dynamicRef")
MAX_HOPS = 50
"""How many schemas may apply to one value through references."""
UNUSABLE = (Unresolvable, CannotDetermineSpecification, ValueError, ArithmeticError, RecursionError)
"""Exceptions that a faulty schema causes."""
METASCHEMA = {"$ref": "https://json-schema.org/draft/2020-12/schema"}


class Wrong(NamedTuple):
    pointer: str
    detail: str
    code: str


class _Circle(Exception):
    pass


class _Nowhere(Exception):
    pass


def compiled(schema: Any) -> jsonschema_rs.Draft202012Validator:
    """Nothing is fetched, and a pattern that backtracks fails after a million steps."""
    options = jsonschema_rs.FancyRegexOptions()
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=False, offline=True, pattern_options=options)


def problem(schema: Any) -> Wrong | None:
    """Why no value can be checked against ``schema``, and where in it; None if it is usable."""
    try:
        places = dict(_places(schema, ""))
        for error in itertools.islice(compiled(METASCHEMA).iter_errors(schema), 1):
            return _wrong(_pointer(error.instance_path), f"Not a JSON Schema (2020-12): {error.message}", "schema")
        root = DRAFT202012.create_resource(schema)
        resolver = Registry().with_resource("", root).resolver_with_root(root)
        heights: dict[int, int] = {}
        for inner, at in _walk(root, resolver):
            _height(inner, at, heights, 0, places)
        compiled(schema)
    except _Circle as error:
        detail = f"It refers to itself, or follows more than {MAX_HOPS} references, without descending into the value."
        return _wrong(str(error), detail, "schema")
    except _Nowhere as error:
        pointer, name = error.args
        return _wrong(pointer, f"{name[:100]} does not exist: a schema can only refer to its own parts.", "schema")
    except jsonschema_rs.ValidationError as error:
        return _wrong(_pointer(error.instance_path), f"No config can be checked against it: {error.message}", "schema")
    except UNUSABLE as error:
        return _wrong("", f"No config can be checked against it: {error} ({type(error).__name__})", "schema")
    return None


def errors(schema: str, value: Any) -> list[Wrong]:
    """The first error of a value by the schema (its text). Raises UNUSABLE for the schema."""
    check = _usable(schema)
    if check.is_valid(value):
        return []
    results = [
        _wrong(_pointer(error.instance_path), error.message, error.kind.name)
        for error in itertools.islice(check.iter_errors(value), MAX_ERRORS)
    ]
    return sorted(results, key=lambda error: error.pointer)


@lru_cache(64)
def _usable(schema: str) -> jsonschema_rs.Draft202012Validator:
    """Raises ValueError if ``problem`` finds something: the schema may have been stored before that check existed."""
    value = json.loads(schema)
    if defect := problem(value):
        raise ValueError(f"{defect.detail} (at {defect.pointer})" if defect.pointer else defect.detail)
    return compiled(value)


def _wrong(pointer: str, detail: str, code: str) -> Wrong:
    return Wrong(pointer, detail[:MAX_WORDS], code)


def _pointer(path: Any) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _places(value: Any, pointer: str) -> Iterator[tuple[int, str]]:
    """The pointer of each object in a document, by the object's identity."""
    inner: Any = ()
    if isinstance(value, dict):
        yield id(value), pointer
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for name, inner_place in inner:
        yield from _places(inner_place, pointer + _pointer([name]))


def _walk(resource: Resource[Any], resolver: Any) -> Iterator[tuple[Any, Any]]:
    yield resource.contents, resolver
    for inner in resource.subresources():
        yield from _walk(inner, resolver.in_subresource(inner))


def _in_place(schema: Mapping[str, Any], resolver: Any, places: dict[int, str]) -> Iterator[tuple[Any, Any]]:
    """The schemas that the schema applies to the same value."""
    for name in REFERENCES:
        if name in schema:
            try:
                target = resolver.lookup(schema[name])
            except Unresolvable as error:
                raise _Nowhere(places[id(schema)] + _pointer([name]), schema[name]) from error
            yield target.contents, target.resolver
    inner = [subschema for name in ("allOf", "anyOf", "oneOf") for subschema in schema.get(name, ())]
    inner += [schema[name] for name in ("not", "if", "then", "else") if name in schema]
    inner += schema.get("dependentSchemas", {}).values()
    for subschema in inner:
        yield subschema, resolver.in_subresource(DRAFT202012.create_resource(subschema))


def _height(schema: Any, resolver: Any, heights: dict[int, int], depth: int, places: dict[int, str]) -> int:
    """How many hops lie below the schema. Raises _Circle if they never end or are too many."""
    height = heights.get(id(schema))
    if height == -1 or depth + (height or 0) > MAX_HOPS:
        raise _Circle(places.get(id(schema), ""))
    if height is None:
        heights[id(schema)] = -1
        below = _in_place(schema, resolver, places) if isinstance(schema, Mapping) else ()
        height = max((1 + _height(*place, heights, depth + 1, places) for place in below), default=0)
        heights[id(schema)] = height
    return height


def answer(question: dict[str, Any]) -> Any:
    if "problem" in question:
        return problem(question["problem"])
    try:
        return {"errors": [errors(question["schema"], value) for value in question["values"]]}
    except UNUSABLE as error:
        return {"unusable": str(error)[:MAX_WORDS]}


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, PROCESSOR_S)  # SIGXCPU ends the process, whatever it is doing
        began = time.process_time()
        reply = answer(json.loads(line))
        output = json.dumps({"answer": reply, "took": time.process_time() - began}).encode() + b"\n"
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(output)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

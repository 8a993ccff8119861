"""JSON Schemas of workloads' configs: everything that one refers to is in it, and nothing is fetched."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import jsonschema
from jsonschema.protocols import Validator
from referencing import Registry, Resource
from referencing.exceptions import CannotDetermineSpecification, Unresolvable
from referencing.jsonschema import DRAFT202012

REFERENCES = ("$ref", "$dynamicRef")
MAX_HOPS = 50
"""How many schemas may say something of one and the same value, each by the one before."""
UNUSABLE = (Unresolvable, CannotDetermineSpecification, ValueError, re.error, ArithmeticError, RecursionError)
"""What validating raises when the schema, not the value, is at fault."""


class _Circle(Exception):
    pass


class _Nowhere(Exception):
    pass


def validator(schema: Any) -> Validator:
    """Of values by ``schema``; what it refers to beyond itself is not looked for."""
    return jsonschema.Draft202012Validator(schema, registry=Registry())


def problem(schema: Any) -> str | None:
    """Why nothing can be validated by ``schema``; None if it can."""
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
        root = DRAFT202012.create_resource(schema)
        resolver = Registry().with_resource("", root).resolver_with_root(root)
        heights: dict[int, int] = {}
        for inner, at in _walk(root, resolver):
            _height(inner, at, heights, 0)
    except jsonschema.SchemaError as error:
        where = "/".join(str(part) for part in error.absolute_path)
        return f"Not a JSON Schema (2020-12): {error.message} at /{where}"
    except _Circle:
        return f"It refers to itself, or more than {MAX_HOPS} times, without going into the value."
    except _Nowhere as error:
        return f"{str(error)[:100]} leads nowhere: a schema can only refer to what is in it."
    except UNUSABLE as error:
        return f"No value can be validated by it: {error}"
    return None


def known_problem(schema: Any) -> str | None:
    """``problem``, for one that is asked about at every claim: it was stored before it was looked at like this."""
    return _known_problem(json.dumps(schema))


@lru_cache(256)
def _known_problem(text: str) -> str | None:
    return problem(json.loads(text))


def _walk(resource: Resource[Any], resolver: Any) -> Iterator[tuple[Any, Any]]:
    yield resource.contents, resolver
    for inner in resource.subresources():
        yield from _walk(inner, resolver.in_subresource(inner))


def _in_place(schema: Mapping[str, Any], resolver: Any) -> Iterator[tuple[Any, Any]]:
    """What the schema says, by other schemas, of the same value."""
    for name in REFERENCES:
        if name in schema:
            try:
                found = resolver.lookup(schema[name])
            except Unresolvable as error:
                raise _Nowhere(schema[name]) from error
            yield found.contents, found.resolver
    inner = [one for name in ("allOf", "anyOf", "oneOf") for one in schema.get(name, ())]
    inner += [schema[name] for name in ("not", "if", "then", "else") if name in schema]
    inner += schema.get("dependentSchemas", {}).values()
    for one in inner:
        yield one, resolver.in_subresource(DRAFT202012.create_resource(one))


def _height(schema: Any, resolver: Any, heights: dict[int, int], depth: int) -> int:
    """How many hops lie below the schema. Raises _Circle where they never end, or not soon."""
    known = heights.get(id(schema))
    if known == -1 or depth + (known or 0) > MAX_HOPS:
        raise _Circle
    if known is None:
        heights[id(schema)] = -1
        below = _in_place(schema, resolver) if isinstance(schema, Mapping) else ()
        known = max((1 + _height(*one, heights, depth + 1) for one in below), default=0)
        heights[id(schema)] = known
    return known

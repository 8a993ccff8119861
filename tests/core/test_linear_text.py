"""Parsing text from tenants, operators and servers takes linear time."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import boilerhouse
import boilerhouse.api
import boilerhouse.controller
import boilerhouse.core
import boilerhouse.dashboard
import boilerhouse.operations
import boilerhouse.process
import boilerhouse.queues
import boilerhouse.telemetry
import boilerhouse.web
import pools
import syncing
import tenants
from boilerhouse.api.schema_examples import REQUESTS
from pools.file_names import plain
from pools.spec import interpolate, variables_of
from syncing.sinks import rclone_names, refusals
from tests.api_calls import problem, refused_fields
from tests.linear import given_up
from tests.snapshot import snapshot

LENGTH = 80_000
MOST_S = 3.0
"""Of processor time. Linear work takes milliseconds; what is quadratic takes a minute or more."""


HOSTILE = [
    "${", "$", "{", "}", "${a", "${a}", " ", "\t", "\n", "a", "0", "-", "_", ".", "/", ":", "@", "=", "a.", "a-", "a/", "-a", "_a",
    "a:", "<", "<message", "<message>", "<title", "<title>", "<a:", "\x1b[", "\x1b[1", "\u201b", "\u201b\u2400", "\udc80", "a\udc80",
    "bh_aaaaaaaa", "://a:b", "://", "Bearer aaaaaaaa", "exec a: ", "error", "manifest for ", "\\000", "[a", "(", "é", "at ", " at ",
    "containers/a/", "/v1.41", "1.", "sha256:", "*_",
]  # fmt: skip


ROOMS = [
    boilerhouse.api, boilerhouse.controller, boilerhouse.core, boilerhouse.dashboard, boilerhouse.operations,
    boilerhouse.process, boilerhouse.queues, boilerhouse.telemetry, boilerhouse.web,
]  # fmt: skip


def patterns() -> Iterator[tuple[str, re.Pattern[str]]]:
    """Every compiled regular expression of the product's modules."""
    for package in (*ROOMS, pools, syncing, tenants):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".migrations" in module.name or ".management" in module.name:
                continue
            for name, value in vars(importlib.import_module(module.name)).items():
                for number, one in enumerate(value if isinstance(value, tuple | list) else [value]):
                    found = next((x for x in one if isinstance(x, re.Pattern)), one) if isinstance(one, tuple) else one
                    if isinstance(found, re.Pattern) and isinstance(found.pattern, str):
                        yield f"{module.name}.{name}.{number}", found


def source_texts() -> Iterator[str]:
    for package in (boilerhouse, pools, syncing, tenants):
        for path in Path(package.__path__[0]).rglob("*.py"):
            yield path.read_text()


def is_searched(name: str, sources: list[str]) -> bool:
    """Whether it may match anywhere in the text; the others match at the beginning only."""
    own = name.split(".")[-2]
    used = re.compile(rf"\b{own}\.(match|fullmatch|search|sub|findall|finditer|split)\(")
    ways = {found for text in sources for found in used.findall(text)}
    return not ways or bool(ways - {"match", "fullmatch"})


BOUNDED = {
    "pools.references._REFERENCE": "at most 500 characters",
    "pools.pull_errors._TELLING_RE": "at most MAX_WORDS",
    "pools.runtime.docker.client._NAMED": "a path that we wrote",
    "pools.runtime.docker.client._VERSION": "a path that we wrote",
    "pools.egress.HOST_NAME": "at most 253 characters",
    "pools.api.registry_credentials.PLACE": "at most 255 characters",
}
"""Those that are not linear, and why they need not be."""


def test_no_regular_expression_takes_more_than_a_walk_through_the_text():
    """80 KB of ``${`` blocked the web process for 7 s. Each expression is tested with text that may make it
    backtrack."""
    looked_at, sources = set(), list(source_texts())
    for name, pattern in patterns():
        looked_at.add(pattern.pattern)
        length = 500 if name.rpartition(".")[0] in BOUNDED else LENGTH
        look = pattern.search if is_searched(name, sources) else pattern.match
        for piece in HOSTILE:
            try:
                with given_up(MOST_S):
                    look((piece * (length // len(piece) + 1))[:length] + "!")
            except AssertionError as error:
                raise AssertionError(f"{name} on {piece!r}") from error
    assert len(looked_at) > 40


WALKS = {
    "variables": lambda text: interpolate(text, {"a": "x"}),
    "names": plain,
    "sentences": lambda text: [refusals.sentence_of(text[at:].encode(errors="replace")) for at in range(20)],
    "respelling": lambda text: rclone_names.listed(text),
}


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize("piece", HOSTILE, ids=ascii)
def test_what_is_made_of_text_is_made_in_one_walk(walk, piece):
    """The functions around them."""
    with given_up(MOST_S):
        WALKS[walk](piece * (LENGTH // len(piece)))


OLDER = re.compile(r"\$\{([^}]*)\}")


@settings(max_examples=300, deadline=None)
@given(st.text("${}ab", max_size=40))
def test_variables_mean_what_they_meant(text):
    values = {"a": "1", "ab": "${a}", "${b": "2", "": "3"}
    assert variables_of(text) == OLDER.findall(text)
    assert interpolate(text, values) == OLDER.sub(lambda found: values.get(found[1], found[0]), text)


OLDER_QUOTES = re.compile("\u201b+(?=[\u2400-\u241f\u2421\uff0e\uff0f])|\u201b(?=\u201b)")


@settings(max_examples=300, deadline=None)
@given(st.text("\u201b\u2400\uff0eab", max_size=30))
def test_quotes_of_names_mean_what_they_meant(text):
    assert plain(text) == OLDER_QUOTES.sub("", text)


@pytest.mark.any_database
@pytest.mark.parametrize("text", ["${" * 60_000, "${" * 30_000 + "}", "x" * 131_070, "é" * 65_536])
def test_a_variable_of_the_environment_has_a_length_that_a_kernel_takes(call, text):
    """A MiB was accepted, and no container ever started."""
    before = snapshot()
    body = {**REQUESTS["createWorkload"], "id": "long", "environment": {"A": text}}
    with given_up(MOST_S):
        answer = call("POST", "workloads", body)
    if text.endswith("}"):
        fields, _ = refused_fields(answer)
        assert fields == {("/environment/A", "unknown_variable")}
    elif len(f"A={text}".encode()) > 131_071:
        problem(answer, 422, "invalid")
        assert snapshot() == before
    else:
        assert answer.status_code == 201

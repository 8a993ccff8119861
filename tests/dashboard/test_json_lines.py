"""Errors of the server name the line of the JSON editor."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from django.contrib.auth.models import User

from boilerhouse.dashboard.json_lines import line_of
from tests.make import make_workload
from tests.pages import plain

TEXT = """{
  "id": "a{[\\"]}",
  "list": [
    1, {"deep": null},
    {"deep": [true,
      false]}
  ],
  "a/b": {"c~d": -1.5e3,
    "": "end"}
}
"""


@pytest.mark.parametrize(
    ("pointer", "line"),
    [
        ("", 1), ("/id", 2), ("/list", 3), ("/list/0", 4), ("/list/1/deep", 4), ("/list/2/deep/1", 6),
        ("/a~1b/c~0d", 8), ("/a~1b/", 9), ("/missing", 1), ("/list/7", 3), ("/id/further", 2), ("/list/2/missing", 5),
    ],
)  # fmt: skip
def test_a_pointer_leads_to_its_line(pointer, line):
    assert line_of(TEXT, pointer) == line


def test_of_a_name_that_occurs_twice_the_last_counts():
    assert line_of('{"a": 1,\n"a": 2}', "/a") == 2


def _value(chance: random.Random, depth: int) -> Any:
    if depth and chance.random() < 0.5:
        return {f'k"{number}': _value(chance, depth - 1) for number in range(3)}
    if depth and chance.random() < 0.5:
        return [_value(chance, depth - 1) for _ in range(3)]
    return chance.choice([None, True, "te,xt]}", -12, 1.5, [], {}])


@pytest.mark.parametrize("seed", range(40))
def test_every_place_of_any_document_is_on_its_line(seed):
    """Each value is replaced by a mark, whose line is looked for in the text."""
    value = {"root": _value(random.Random(seed), 4)}

    def places(inner: Any, pointer: str) -> list[tuple[str, Any, Any]]:
        pairs = (
            list(inner.items())
            if isinstance(inner, dict)
            else list(enumerate(inner))
            if isinstance(inner, list)
            else []
        )
        own = [(f"{pointer}/{name}", inner, name) for name, _ in pairs]
        return own + [one for name, below in pairs for one in places(below, f"{pointer}/{name}")]

    for pointer, holder, name in places(value, ""):
        before, holder[name] = holder[name], "THE MARK"
        text = json.dumps(value, indent=1)
        holder[name] = before
        line = 1 + text[: text.index("THE MARK")].count("\n")
        assert line_of(text, pointer) == line, pointer


def test_the_workloads_editor_names_the_line(client, data_dir, db):
    client.force_login(User.objects.create_superuser("ada"))
    make_workload("notes")
    text = client.get("/workloads/notes/edit?tab=json").context["document"].text
    value = json.loads(text)
    value["resources"] = {**(value.get("resources") or {}), "memoryMb": "much"}
    text = json.dumps(value, indent=2)
    line = 1 + text[: text.index('"much"')].count("\n")
    answer = client.post("/workloads/notes/edit", {"json": text, "do": "save", "seen": ""})
    assert answer.status_code == 422
    assert f"Line {line}, /resources/memoryMb:" in plain(answer)

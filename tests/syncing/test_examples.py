"""The API accepts the documents of the examples. tests/stack/test_examples.py uses them on a real engine."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_database
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = sorted(found.parent.name for found in EXAMPLES.glob("*/Dockerfile"))
KEYS = {"id": "examples", "name": "Examples", "accessKeyId": "EXAMPLE", "secretAccessKey": "EXAMPLE-SECRET"}


def document(name: str, kind: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((EXAMPLES / name / f"{kind}.json").read_text())
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_examples_documents_are_taken_and_none_of_its_fields_is_a_default_in_disguise(call, name):
    """Each field that an example sets exists in the API, and differs from its default."""
    assert call("POST", "credentials", KEYS).status_code == 201
    given = document(name, "workload")
    made = call("POST", "workloads", given)
    assert made.status_code == 201, made.content
    bare = call("POST", "workloads", {"id": "bare", "name": "bare", "image": given["image"]}).json()
    assert {key for key, value in given.items() if bare[key] == value} <= {"image"}
    for path, kind in (("pools", "pool"), ("sync-specs", "sync-spec")):
        answer = call("POST", path, document(name, kind))
        assert answer.status_code == 201, answer.content


@pytest.mark.parametrize("name", NAMES)
def test_every_example_is_told_and_each_of_its_fields_is_explained(name):
    words = (EXAMPLES / name / "README.md").read_text()
    unexplained = [field for field in document(name, "workload") if f"`{field}" not in words]
    assert set(unexplained) <= {"id", "name", "image", "pullPolicy"}
    assert f"({name}/README.md)" in (EXAMPLES / "README.md").read_text()
    assert re.search(r"^FROM \$\{BASE\}", (EXAMPLES / name / "Dockerfile").read_text(), re.MULTILINE)

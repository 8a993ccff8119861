"""Image names are parsed as engines and registries parse them."""

from __future__ import annotations

import json
import re

import pytest

from pools import references
from pools.references import InvalidReference, parse
from tests.api_calls import problem

SHA = "sha256:" + "0123456789abcdef" * 4

KNOWN = [
    ("busybox", "docker.io", "library/busybox", "", "", "latest"),
    ("busybox:1.36", "docker.io", "library/busybox", "1.36", "", "1.36"),
    ("jupyter/base-notebook", "docker.io", "jupyter/base-notebook", "", "", "latest"),
    ("ghcr.io/owner/app/part:v1_2.3-x", "ghcr.io", "owner/app/part", "v1_2.3-x", "", "v1_2.3-x"),
    ("127.0.0.1:5055/dg", "127.0.0.1:5055", "dg", "", "", "latest"),
    ("127.0.0.1:5055/dg:2", "127.0.0.1:5055", "dg", "2", "", "2"),
    (f"127.0.0.1:5055/dg@{SHA}", "127.0.0.1:5055", "dg", "", SHA, SHA),
    (f"127.0.0.1:5055/a/dg:2@{SHA}", "127.0.0.1:5055", "a/dg", "2", SHA, SHA),
    (f"busybox@{SHA}", "docker.io", "library/busybox", "", SHA, SHA),
    ("localhost/app", "localhost", "app", "", "", "latest"),
    ("localhost:5000/app:1", "localhost:5000", "app", "1", "", "1"),
    ("[::1]:5000/app:1", "[::1]:5000", "app", "1", "", "1"),
    ("a/b__c/d--e.f:1", "docker.io", "a/b__c/d--e.f", "1", "", "1"),
    (f"repo@sha512:{'a' * 128}", "docker.io", "library/repo", "", f"sha512:{'a' * 128}", f"sha512:{'a' * 128}"),
]  # fmt: skip

REFUSED = [
    ("Busybox", "lower case"),
    ("host.example/App:1", "lower case"),
    ("https://ghcr.io/a", "without a scheme"),
    ("repo@sha256:abc", "64 lower-case hexadecimal"),
    (f"repo@{SHA.upper()}", "64 lower-case hexadecimal"),
    ("repo@1.2", "64 lower-case hexadecimal"),
    ("repo:", "Write"),
    ("repo:a:b", "Write"),
    ("a//b", "Write"),
    ("/a", "Write"),
    ("a/", "Write"),
    ("a b", "Write"),
    ("repo:" + "a" * 129, "Write"),
    ("-a", "Write"),
    ("a/" + "b" * 256, "longer than 255"),
]


@pytest.mark.parametrize(("text", "registry", "repository", "tag", "digest", "version"), KNOWN)
def test_the_parts_of_a_name(text, registry, repository, tag, digest, version):
    """A digest is not cut at its colon, and a port is no tag."""
    found = parse(text)

    assert (found.registry, found.repository, found.tag, found.digest) == (registry, repository, tag, digest)
    assert found.version == version
    assert text.startswith(found.name)
    assert not found.is_id
    assert re.match(references.PATTERN, text)


@pytest.mark.parametrize("text", [SHA, SHA.removeprefix("sha256:")])
def test_an_id_of_a_local_image_has_no_registry(text):
    assert parse(text).is_id


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_what_is_no_name_is_refused_with_the_reason(text, said):
    with pytest.raises(InvalidReference, match=said):
        parse(text)


def test_beside_a_digest_the_engine_is_not_asked_for_the_tag():
    assert references.at_engine(f"127.0.0.1:5/a:1@{SHA}") == f"127.0.0.1:5/a@{SHA}"
    assert references.at_engine("127.0.0.1:5/a:1") == "127.0.0.1:5/a:1"
    assert references.at_engine("bf0eabd132e1") == "bf0eabd132e1"


@pytest.mark.any_database
@pytest.mark.parametrize("text", ["Busybox", "repo@sha256:abc", "https://ghcr.io/a"])
def test_a_workload_whose_image_is_no_name_is_refused(call, text):
    """Reported when the workload is saved, not by the first start."""
    found = problem(call("POST", "workloads", {"name": "w", "image": text}), 422, "invalid")

    assert [one["pointer"] for one in found["errors"]] == ["/image"], json.dumps(found)
    assert call("GET", "workloads").json()["items"] == []


@pytest.mark.any_database
def test_a_workload_by_digest_is_taken(call):
    answer = call("POST", "workloads", {"name": "w", "image": f"127.0.0.1:5055/dg:1@{SHA}"})

    assert answer.status_code == 201, answer.content
    assert answer.json()["image"] == f"127.0.0.1:5055/dg:1@{SHA}"

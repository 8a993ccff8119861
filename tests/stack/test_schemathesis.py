"""The API answers any generated request as its schema says, and never with 500 (P12)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from boilerhouse.api.schema_examples import MAPPING, WORKLOAD

pytestmark = [pytest.mark.stack, pytest.mark.any_database]
CONFIG = Path(__file__).with_name("schemathesis.toml")
ROOT = CONFIG.parents[2]
FOLLOWED = ["--exclude-path", "/api/v1/events/stream"]
"""It goes on for ever; it has tests of its own."""


@pytest.fixture(scope="module")
def populated(stack, s3):
    """What the schema's examples name is there: a pool with warm containers, a sync spec, a tenant with state."""
    for kind, body in (
        ("workloads", WORKLOAD),
        ("pools", {"id": "notes", "workloadId": "notes", "minSize": 1, "maxSize": 3}),
    ):
        assert stack.call("POST", kind, body).status_code in (201, 409), "another test may have made it"
    keys = {"accessKeyId": s3.access_key, "secretAccessKey": s3.secret_key}
    stack.ok("POST", "credentials", {"id": "storage", "name": "Storage", **keys}, 201)
    sink = {name: value for name, value in s3.json("notes/${tenantId}/").items() if name not in keys}
    spec = {"id": "notes", "poolId": "notes", "mappings": [MAPPING], "sink": {**sink, "credentialId": "storage"}}
    stack.ok("POST", "sync-specs", {**spec, "policy": {"onClaim": True, "onRelease": True}}, 201)
    for _ in range(2):
        claimed = stack.claim("alice", "notes")
        stack.exec(claimed["containerId"], "date > /state/date")
        stack.release("alice")
    stack.claim("alice", "notes")
    return stack


def run(stack, tmp_path, *options: str) -> None:
    # One worker: ast.parse of Python 3.11 in several threads at once ends in SystemError now and then.
    command = [
        str(Path(sys.executable).with_name("st")), "--config-file", str(CONFIG), "run", f"{stack.base}/api/v1/openapi.json",
        "-H", f"Authorization: Bearer {stack.key}", "--checks", "all", *FOLLOWED, "--request-timeout", "60",
        "--continue-on-failure", "--no-shrink", "--warnings", "off", "--workers", "1", *options,
    ]  # fmt: skip
    hooks = {"SCHEMATHESIS_HOOKS": "tests.stack.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
    environment = {**os.environ, **hooks, "COLUMNS": "200"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stdout[-15_000:]
    broke = [
        line for line in stack.log.read_text().splitlines() if "unhandled error" in line or '"status": 500' in line
    ]
    assert not broke, broke[:3]


def test_examples_and_boundaries(populated, tmp_path):
    """With the values that answered 500 once, in each place of each operation (P12)."""
    run(populated, tmp_path, "--phases", "examples,coverage")


@pytest.mark.long
def test_random_requests_and_chains_of_them(populated, tmp_path):
    run(populated, tmp_path, "--phases", "fuzzing,stateful", "--max-examples", "60")

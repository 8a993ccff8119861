"""The log filter: no value that names or resembles a secret is written (P10)."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest

from boilerhouse.core import api_keys
from boilerhouse.core.models import Role
from boilerhouse.telemetry import logs

CANARY = "c4n4ry"


@pytest.mark.parametrize(
    "event",
    [
        {"password": CANARY},
        {"secretAccessKey": CANARY},
        {"sink": {"headers": {"Authorization": CANARY}}},
        {"body": {"secrets": {"A": CANARY}}},
        {"listed": [{"api_key": CANARY}]},
        {"event": f"GET http://user:{CANARY}@host/path failed"},
        {"event": f"header was Bearer {CANARY}.{CANARY}"},
        {"event": f"Basic {CANARY}{CANARY}=="},
    ],
)
def test_a_secret_is_replaced_wherever_it_stands(event):
    assert CANARY not in json.dumps(logs.redact(None, "info", event))


def test_a_key_of_the_api_is_replaced(db):
    _, key = api_keys.create_key(name="k", role=Role.VIEWER)
    assert key not in json.dumps(logs.redact(None, "info", {"event": f"it said {key}!"}))


def test_what_a_link_that_logs_in_holds_is_replaced():
    """In any path."""
    token = "dabc12-" + "0123456789abcdef" * 2
    for path in (f"/login/MQ/{token}/", f"/login/MQ/{token}", f"//login/MQ/{token}/x?y", token):
        assert token not in json.dumps(logs.redact(None, "info", {"path": path}))


def test_what_is_no_secret_stays():
    event = {"event": "request", "path": "/api/v1/tenants/bob", "nested": {"tenant": "a", "n": [1, None, True]}}
    assert logs.redact(None, "info", dict(event)) == event


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_traceback_shows_no_values_of_variables(style):
    """The pretty printers of tracebacks print every local variable."""
    lines = f"""
import logging
from boilerhouse.telemetry import logs
logs.configure("{style}", "INFO")
import structlog
def fail():
    value = "c4n4" + "ry"
    raise ValueError("no luck")
for say in (structlog.get_logger("ours").exception, logging.getLogger("theirs").exception):
    try:
        fail()
    except ValueError:
        say("it broke")
"""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "boilerhouse.settings"}
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, env=environment, check=True)

    assert done.stderr.count("ValueError: no luck") == 2
    assert "c4n4ry" not in done.stderr.replace('"c4n4" + "ry"', "")
    assert done.stdout == "", "logs go to stderr"
    if style == "json":
        assert all(json.loads(line)["level"] == "error" for line in done.stderr.splitlines())


def test_libraries_that_print_requests_with_their_headers_are_quiet():
    for name in ("botocore", "urllib3", "docker"):
        assert logging.getLogger(name).getEffectiveLevel() >= logging.WARNING

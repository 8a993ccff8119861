"""Every numeric input has a minimum and a maximum, and the product works at both."""

from __future__ import annotations

import argparse
import base64
import copy
import importlib
import io
import json
import math
import re
from datetime import timedelta

import pytest
from django.apps import apps as django_apps
from django.core.management import CommandError, call_command, get_commands, load_command_class
from django.utils import timezone

from boilerhouse.api.schema_examples import REQUESTS
from boilerhouse.controller import controller
from boilerhouse.core import bounds, checks
from pools import feasibility, sizing
from pools.api.engine_fields import MAX_MEMORY_MB
from pools.models import Pool, Workload, WorkloadVersion
from syncing.models import SyncSpec
from tenants import idle
from tests.api_calls import problem
from tests.make import make_held, make_pool, make_sync_spec, make_workload
from tests.routes import PATHS, SCHEMA
from tests.snapshot import snapshot

pytestmark = pytest.mark.postgresql

HIGHEST = 2**53
"""What JSON's numbers hold exactly."""


def numbers(schema, at=(), seen=()):
    """Every number in a schema: its path and its own schema."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name not in seen:
            yield from numbers(SCHEMA["components"]["schemas"][name], at, (*seen, name))
        return
    kinds = schema.get("type", [])
    if {"integer", "number"} & set([kinds] if isinstance(kinds, str) else kinds):
        yield at, schema
    for name, inner in schema.get("properties", {}).items():
        yield from numbers(inner, (*at, name), seen)
    if isinstance(schema.get("items"), dict):
        yield from numbers(schema["items"], (*at, 0), seen)
    for word in ("oneOf", "anyOf", "allOf"):
        for inner in schema.get(word, []):
            yield from numbers(inner, at, seen)


def test_limits_of_exec_have_sane_maxima(settings):
    """A request occupies a thread, and its answer is built in memory."""
    for name, (low, high) in checks.EXEC_LIMITS.items():
        assert low <= getattr(settings, name) <= high
        for wrong in (low - 1, high + 1):
            before = getattr(settings, name)
            setattr(settings, name, wrong)
            assert [f"{name} must be" in one.msg for one in checks.environment() if one.id == "boilerhouse.E012"]
            setattr(settings, name, before)


def in_bodies():
    for path, methods in SCHEMA["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {})
            for schema in {json.dumps(one["schema"]) for one in content.values()}:
                for at, found in numbers(json.loads(schema)):
                    yield f"{method.upper()} {path}", operation["operationId"], at, found


def in_parameters():
    for path, methods in SCHEMA["paths"].items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", []):
                for _, found in numbers(parameter["schema"]):
                    yield f"{method.upper()} {path}", parameter, found


BODIES, PARAMETERS = list(in_bodies()), list(in_parameters())


def test_every_number_of_the_schema_has_a_lowest_and_a_highest_value():
    """Found by walking the schema, so that new fields are checked too."""
    assert len(BODIES) > 40
    assert len(PARAMETERS) > 20
    for where, _, at, found in BODIES:
        assert -HIGHEST <= found["minimum"] <= found["maximum"] <= HIGHEST, (where, at)
    for where, parameter, found in PARAMETERS:
        assert 0 <= found["minimum"] <= found["maximum"] <= bounds.MAX_ID, (where, parameter["name"])
    for where, _, at, found in BODIES:
        if str(at[-1]).endswith("Ms"):
            assert found["maximum"] <= bounds.TEN_YEARS_MS, (where, at)


def put(body, at, value):
    """``body`` with ``value`` at the path; missing parents are created."""
    made = copy.deepcopy(body)
    place = made
    for number, name in enumerate(at[:-1]):
        blank = [] if at[number + 1] == 0 else {}
        if isinstance(place, list):
            if not place:
                place.append(blank)
            place = place[0]
        else:
            if place.get(name) is None:
                place[name] = blank
            place = place[name]
    if place == []:
        place.append(None)
    place[at[-1]] = value
    return made


NEEDED = {
    "tty": {"cols": 80, "rows": 24},
    "healthCheck": {"command": ["true"]},
    "ports": [{"name": "a", "containerPort": 1}],
    "tmpfs": [{"path": "/scratch", "sizeMb": 1}],
    "ulimits": [{"name": "cpu", "soft": 0, "hard": -1}],
}
"""What an object needs beside the number, where the example has none."""


SFTP = {
    "type": "sftp", "host": "sftp.example.com", "user": "boilerhouse", "password": "x", "path": "/state",
    "hostKeys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"],
}  # fmt: skip


def completed(body, at):
    if at[0] in NEEDED and at[0] not in body:
        body = {**body, at[0]: copy.deepcopy(NEEDED[at[0]])}
    if tuple(at) == ("sink", "port"):
        body = {**body, "sink": SFTP}
    if at[0] == "hooks":
        body = {**body, "hooks": {at[1]: {"command": ["true"]}}}
    if at[-1] in ("shmMb", "sizeMb"):
        body = {**body, "resources": {"memoryMb": MAX_MEMORY_MB}}
    if tuple(at) == ("ttlMs",) and "poolId" in body:
        body = {**body, "wait": False}  # a claim would wait for a container, which nobody makes here
    if at[-1] in ("minSize", "minIdle"):
        body = {**body, "maxSize": 10_000}
    return body


@pytest.fixture
def generous(settings, monkeypatch):
    """A deployment that allows all that the schema allows, on an unknown host."""
    settings.BOILERHOUSE_ALLOW_ROOT = True
    for name in ("EVENT", "RUN", "PROBE", "BACKUP", "AUDIT"):
        setattr(settings, f"BOILERHOUSE_{name}_RETENTION_S", bounds.TEN_YEARS_S)
    monkeypatch.setattr(feasibility, "_capabilities", lambda: None)


@pytest.mark.parametrize(
    ("where", "name", "at", "schema"), BODIES, ids=[f"{name}-{'.'.join(map(str, at))}" for _, name, at, _ in BODIES]
)
def test_the_highest_and_the_lowest_are_taken_and_one_beyond_is_refused(call, world, generous, where, name, at, schema):
    """422 with the field's pointer, and nothing has changed."""
    Pool.objects.update(max_size=10_000)
    method, template = PATHS[name]
    ids = {"credentialId": "storage", "tenantId": "bob", "containerId": str(world.pk), "nodeId": world.node_id}
    path = re.sub(r"\{(\w+)\}", lambda match: ids.get(match[1], "notes"), template).removeprefix("/api/v1/")
    body = completed(REQUESTS[name], at)
    step = 0.001 if schema["type"] == "number" else 1
    pointer = "/" + "/".join(map(str, at))

    def pointers(value):
        answer = call(method, path, put(body, at, value))
        assert answer.status_code < 500, answer.content
        found = answer.json()
        return answer.status_code, {one["pointer"] for one in found.get("errors", [])}

    before = snapshot()
    for value in (
        schema["maximum"] + step,
        schema["minimum"] - step,
        10**400,
        -(10**400),
        "nan",
        "inf",
        "-Infinity",
        True,
    ):
        status, found = pointers(value)
        assert (status, found) == (422, {pointer}), value
    assert snapshot() == before
    for value in (schema["maximum"], schema["minimum"]):
        status, found = pointers(value)
        assert pointer not in found, (status, value)
        if "create" in name:
            Workload.objects.filter(pools=None).delete()
            for model in (Pool, SyncSpec):
                model.objects.exclude(pk="notes").delete()


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_no_number_is_refused_as_json_and_as_yaml(call, tmp_path, constant):
    """In a body it is invalid JSON; in a document for apply it is not a number."""
    text = f'{{"id": "w", "name": "w", "image": "i", "resources": {{"cpus": {constant}}}}}'
    problem(call("POST", "workloads", raw=text), 400, "malformed")
    for value in {
        "NaN": (".nan",),
        "Infinity": (".inf", "'inf'"),
        "-Infinity": ("-.inf",),
        "1e999": ("1.0e+999", "'nan'"),
    }[constant]:
        file = tmp_path / "w.yaml"
        file.write_text(f"kind: Workload\nid: w\nname: w\nimage: i\nresources: {{cpus: {value}}}\n")
        out = io.StringIO()
        with pytest.raises(CommandError):
            call_command("apply", str(file), "--output", "json", stdout=out)
        assert json.loads(out.getvalue())["documents"][0]["outcome"] == "failed"
    assert not Workload.objects.exists()


@pytest.mark.parametrize("value", ["9" * 5000, "2026-99-99", "9999999999-01-01"])
def test_a_document_whose_values_are_beyond_python_fails_and_the_rest_is_planned(db, data_dir, tmp_path, value):
    """YAML converts text to numbers and dates."""
    (tmp_path / "a.yaml").write_text(f"kind: Workload\nid: a\nname: a\nimage: i\nstopTimeoutMs: {value}\n")
    (tmp_path / "b.yaml").write_text("kind: Workload\nid: b\nname: b\nimage: nothing:1\n")
    out = io.StringIO()
    with pytest.raises(CommandError):
        call_command("apply", str(tmp_path), "--output", "json", stdout=out)
    assert {one["outcome"] for one in json.loads(out.getvalue())["documents"]} == {"failed", "created"}
    assert not Workload.objects.exists()


def test_every_argument_of_a_command_that_is_a_number_has_bounds(db, data_dir):
    """Arguments use our bounded types; plain int and float accept any number."""
    looked_at = 0
    for name, app in get_commands().items():
        if not isinstance(app, str) or app.split(".")[0] not in ("boilerhouse", "pools", "syncing", "tenants"):
            continue
        parser = load_command_class(app, name).create_parser("manage.py", name)
        for action in parser._actions:
            own = action.option_strings not in (["-v", "--verbosity"],)
            if own and action.type in (int, float):
                pytest.fail(f"{name} {action.option_strings or action.dest}: bounded by nothing")
            if own and callable(action.type) and action.type.__name__ in ("whole_number", "any_number", "moment"):
                looked_at += 1
                for text in ("9" * 5000, "-1", "nan", "1e999", "", "x"):
                    with pytest.raises(argparse.ArgumentTypeError):
                        action.type(text)
    assert looked_at > 12


@pytest.mark.parametrize("arguments", [
    ("create_api_key", "--name", "n", "--role", "admin", "--expires-days", "3651"),
    ("create_api_key", "--name", "n", "--role", "admin", "--expires-days", "999999999999"),
    ("events", "--after", "9" * 30), ("events", "--limit", "-1"), ("logs", "alice", "--tail", "-1"),
    ("logs", "alice", "--since", "yesterday"), ("claim", "alice", "--pool", "p", "--timeout-ms", "9" * 30),
    ("refill_pools", "--timeout", "nan"),
])  # fmt: skip
def test_a_command_says_which_numbers_it_takes(db, data_dir, arguments):
    """A usage error, exit code 2."""
    with pytest.raises(CommandError, match="must be a"):
        call_command(*arguments)


def test_a_key_expires_within_ten_years(call):
    """A position beyond the end is refused with a reason, and the largest number does not cause a 500."""
    far = timezone.now() + timedelta(seconds=bounds.TEN_YEARS_S + 3600)
    for at in (far.isoformat(), "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00", "99999-01-01T00:00:00Z"):
        found = problem(call("POST", "api-keys", {"name": "k", "role": "viewer", "expiresAt": at}), 422)
        assert [one["pointer"] for one in found["errors"]] == ["/expiresAt"]
    near = timezone.now() + timedelta(seconds=bounds.TEN_YEARS_S - 3600)
    assert call("POST", "api-keys", {"name": "k", "role": "viewer", "expiresAt": near.isoformat()}).status_code == 201


# Query parameters and headers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "parameter", "schema"), PARAMETERS, ids=[f"{w} {p['name']}" for w, p, _ in PARAMETERS]
)
def test_numbers_beside_the_body_are_bounded_too(call, world, where, parameter, schema):
    """One beyond, and thousands of digits, are 422."""
    method, _, template = where.partition(" ")
    ids = {"tenantId": "bob", "containerId": str(world.pk)}
    path = re.sub(r"\{(\w+)\}", lambda match: ids.get(match[1], "notes"), template).removeprefix("/api/v1/")
    beyond = [schema["maximum"] + 1, "9" * 4401, "0" * 5000 + "1", "-1", "1.5", "nan", "\u0661"]
    beyond += [schema["minimum"] - 1] if schema["minimum"] else []
    before = snapshot()
    for value in beyond:
        if parameter["in"] == "header":
            answer = call(method, path, **{parameter["name"].replace("-", "_"): str(value).encode().decode("latin-1")})
        else:
            answer = call(method, f"{path}?{parameter['name']}={value}", {} if method == "POST" else None)
        problem(answer, 409 if path == "tenants/bob/logs" else 422)  # bob holds nothing
    assert snapshot() == before


def cursor_of(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


CURSORS = [
    "", "x", "AA==", cursor_of(None), cursor_of([]), cursor_of([None, None]), cursor_of([1]), cursor_of({}),
    cursor_of(["0001-01-01T00:00:00+14:00", "a"]), cursor_of(["9999-12-31T23:59:59-12:00", "a"]),
    cursor_of(["2026-01-01T00:00:00", "a"]), cursor_of(["2026-01-01T00:00:00+00:00", None]),
    cursor_of(["2026-01-01T00:00:00+00:00", "a\0b"]), cursor_of(["2026-01-01T00:00:00+00:00", {"a": 1}]),
    cursor_of([True, True]), cursor_of([10**30, 10**30]), cursor_of([-1, -1]), cursor_of([[], []]),
    cursor_of(["1969-01-01T00:00:00+00:00", "a"]),
    base64.urlsafe_b64encode(b'["2026-01-01T00:00:00+00:00", "\\ud800"]').decode(),
    base64.urlsafe_b64encode(b'[NaN, NaN]').decode(), base64.urlsafe_b64encode(b"[" * 9000).decode(), "9" * 5000,
]  # fmt: skip
LISTS = sorted(
    where.partition(" ")[2]
    for where, parameter, _ in PARAMETERS
    # The cursor of a list of files is a name, which may be any.
    if parameter["name"] == "limit" and not where.endswith(("/files/list", "/state/files"))
)


@pytest.mark.parametrize("path", LISTS)
def test_a_cursor_that_no_list_gave_is_refused(call, world, path):
    """Of every list; the content of a cursor is input like any other."""
    ids = {"tenantId": "alice", "containerId": str(world.pk)}
    path = re.sub(r"\{(\w+)\}", lambda match: ids.get(match[1], "notes"), path).removeprefix("/api/v1/")
    for cursor in CURSORS:
        answer = call("GET", f"{path}?cursor={cursor}")
        assert answer.status_code in ((200, 422) if cursor in ("", CURSORS[13]) else (422,)), (cursor, answer.content)
    first = call("GET", f"{path}?limit=1").json()
    if first["nextCursor"]:
        assert call("GET", f"{path}?limit=1&cursor={first['nextCursor']}").status_code == 200


FILTERED = sorted(
    {
        (path, parameter["name"])
        for path, methods in SCHEMA["paths"].items()
        for parameter in methods.get("get", {}).get("parameters", [])
        if parameter["in"] == "query"
    }
)


@pytest.mark.parametrize(("path", "name"), FILTERED)
def test_no_query_parameter_is_an_error_of_ours(call, world, path, name):
    """Whatever the value is, a list or a log answers with matching entries, none, or 4xx."""
    ids = {"tenantId": "alice", "containerId": str(world.pk)}
    path = re.sub(r"\{(\w+)\}", lambda match: ids.get(match[1], "notes"), path).removeprefix("/api/v1/")
    for value in ("", "%00", "%F0%9F%9B%A2", "9" * 5000, "-1", "null", "true", "0001-01-01T00:00:00%2B14:00",
                  "9999-12-31T23:59:59-12:00", "%ed%a0%80", "a%0d%0ab", "[]", "${x}", "'"):  # fmt: skip
        if path.endswith("events/stream"):
            continue  # it would not end
        answer = call("GET", f"{path}?{name}={value}")
        assert answer.status_code < 500 or answer.json()["code"] in ("engine_failed", "container_missing"), (
            value,
            answer.content,
        )


# What uses them -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_highest", [True, False])
def test_every_step_of_the_controller_bears_the_extremes(data_dir, settings, is_highest):
    """One pool's number stopped the saves of all."""
    controller._sent.clear()
    for name in ("EVENT", "RUN", "PROBE", "BACKUP", "AUDIT", "USAGE", "POOL_USAGE"):
        setattr(settings, f"BOILERHOUSE_{name}_RETENTION_S", bounds.TEN_YEARS_S if is_highest else 0)
    pool = make_pool(
        workload=make_workload(resources={"disk_mb": bounds.MAX_MB if is_highest else 1}),
        idle_timeout_ms=bounds.TEN_YEARS_MS if is_highest else 1, max_size=10_000 if is_highest else 1,
    )  # fmt: skip
    make_sync_spec(pool, interval_ms=bounds.TEN_YEARS_MS if is_highest else 5000)
    row = make_held(pool, "bob")
    assert idle.due_at(row) is not None
    for _, step in controller.STEPS:
        step()
    sizing.refill(pool.pk)


def test_numbers_that_were_stored_before_are_brought_within_bounds(data_dir):
    """Values that were accepted before there were bounds."""
    pool = make_pool(idle_timeout_ms=2**53 - 1, workload=make_workload(resources={"disk_mb": 10**15}))
    fine = make_pool(idle_timeout_ms=5000, workload=make_workload(resources={"disk_mb": 64}))
    spec = make_sync_spec(pool, interval_ms=2**40)
    for app, name in (("pools", "0004_bounds"), ("syncing", "0007_bounds")):
        importlib.import_module(f"{app}.migrations.{name}").clamp(django_apps, None)
    for row in (pool, fine, spec):
        row.refresh_from_db()
    assert (pool.idle_timeout_ms, fine.idle_timeout_ms) == (bounds.TEN_YEARS_MS, 5000)
    assert spec.interval_ms == bounds.TEN_YEARS_MS
    kept = [version.spec.resources.disk_mb for version in WorkloadVersion.objects.order_by("pk")]
    assert kept == [bounds.MAX_MB, 64]


def test_numbers_of_the_environment_are_checked_when_a_process_starts(settings):
    """By the unit that a setting's name ends with, or by what it counts; a new setting without a range fails."""
    assert not [one for one in checks._numbers() if one.id == "boilerhouse.E009"]
    known = checks.numbers_set()
    assert len(known) > 40
    assert [name for name in known if checks.range_of(name) is None] == []
    assert not {"BOILERHOUSE_HTTPS", "BOILERHOUSE_TERMINAL"} & set(known)
    settings.BOILERHOUSE_EVENT_RETENTION_S = 10**15
    settings.BOILERHOUSE_DISK_FLOOR_MB = 10**12
    settings.BOILERHOUSE_DRAIN_S = math.nan
    settings.BOILERHOUSE_MAX_STREAMS = -1
    settings.BOILERHOUSE_PARALLEL_TRANSFERS = 0
    settings.BOILERHOUSE_STAGED_MAX_BYTES = 2**52
    settings.BOILERHOUSE_WEB_THREADS = 10**6
    said = [one.msg for one in checks._numbers()]
    assert [text.split()[0].removeprefix("BOILERHOUSE_") for text in said] == [
        "DISK_FLOOR_MB", "DRAIN_S", "EVENT_RETENTION_S", "MAX_STREAMS", "PARALLEL_TRANSFERS", "STAGED_MAX_BYTES",
        "WEB_THREADS",
    ]  # fmt: skip


def test_a_form_shows_a_number_of_any_length(client, admin_user, data_dir):
    """The form shows the entered value with its error."""
    client.force_login(admin_user)
    for digits in (1, 20, 400, 5000):
        body = {"name": "w", "image": "i"}
        answer = client.post("/workloads/new", {"document": json.dumps(body), "/name": "w", "/image": "i",
                                                "/stopTimeoutMs": "9" * digits, "do": "add:/ports"})  # fmt: skip
        assert answer.status_code in (200, 422), digits

"""How a workload's process runs: checked on save, stored unchanged, and the same for earlier versions."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from boilerhouse.core import clock
from boilerhouse.core.models import Event
from pools import health_reports, lifecycle, services, sizing, stability
from pools.models import Container, Pool, Workload, WorkloadVersion
from pools.states import ContainerState, Fault, PoolState, Trouble
from tests.api_calls import problem
from tests.make import make_container, make_pool, make_spec, make_workload

pytestmark = pytest.mark.any_database
BODY = {"id": "w", "name": "w", "image": "nothing:1", "pullPolicy": "never"}

REFUSED = [
    # B14
    ({"entrypoint": "/init"}, {"/entrypoint"}),
    ({"entrypoint": ["", "x"]}, {"/entrypoint/0"}),
    ({"entrypoint": ["x", None]}, {"/entrypoint/1"}),
    ({"entrypoint": ["x"] * 201}, {"/entrypoint"}),
    *(({"workingDir": path}, {"/workingDir"}) for path in ("app", "/app/", "//app", "/a/../b", "/a\n", "", "/" + "a" * 400)),
    # B7
    *(({"init": value}, {"/init"}) for value in (False, 1, "true", "none", None, {})),
    # B1
    *(({"healthCheck": value}, {"/healthCheck"}) for value in ("off", "", 1, False, ["true"])),
    ({"healthCheck": {}}, {"/healthCheck/command"}),
    ({"healthCheck": {"command": ["true"], "image": True}}, {"/healthCheck/image"}),
    # B11
    *(({"stopSignal": value}, {"/stopSignal"}) for value in ("TERM", "sigterm", 15, "SIGSTOP", "SIGNOPE", "")),
    # B3
    *(({"user": value}, {"/user"}) for value in ("app", [])),
    *(({"user": {"uid": one, "gid": other}}, {"/user/uid", "/user/gid"})
      for one, other in ((-1, 2**31 - 1), ("x", True), (200_000, 1_200_001))),
    ({"user": {"uid": 0}}, {"/user/uid"}),
    ({"user": {"uid": 1}, "security": {"runAsUser": 2}}, {"/user/uid"}),
    ({"security": {"runAsUser": 250_000}}, {"/security/runAsUser"}),
    ({"user": {"groups": 5}}, {"/user/groups"}),
    ({"user": {"groups": [5, 6, 5]}}, {"/user/groups"}),
    ({"user": {"groups": list(range(33))}}, {"/user/groups"}),
    ({"user": {"groups": [0, "docker", 200_007]}}, {"/user/groups/1", "/user/groups/2"}),
    # B4
    ({"user": {"name": "app"}}, {"/user/home"}),
    *(({"user": {"name": name, "home": "/h"}}, {"/user/name"})
      for name in ("root", "App", "a:b", "a\nb", "1a", "", "a" * 33)),
    *(({"user": {"home": path}}, {"/user/home"}) for path in ("h", "/", "/a:b", "/a/../b", "/a\n")),
    ({"user": {"shell": "/bin/bash"}}, {"/user/shell"}),
    ({"volumes": {"state": {"containerPath": "/etc/passwd"}}}, {"/volumes/state/containerPath"}),
]  # fmt: skip


def pointers(answer):
    found = problem(answer, 422, "invalid")
    assert all(one["detail"] for one in found["errors"])
    return {one["pointer"] for one in found["errors"]}


@pytest.mark.parametrize(("asked", "expected"), REFUSED, ids=lambda one: repr(one)[:50])
def test_what_no_process_can_run_as_is_refused_at_every_door(client, admin_user, call, tmp_path, asked, expected):
    """With the pointer, and nothing has changed."""
    make_workload("old")
    assert pointers(call("POST", "workloads", {**BODY, **asked})) == expected
    assert pointers(call("PUT", "workloads/old", {**BODY, "id": "old", **asked})) == expected
    file = tmp_path / "w.yaml"
    file.write_text(json.dumps({"kind": "Workload", **BODY, **asked}))
    out = io.StringIO()
    with pytest.raises(CommandError):
        call_command("apply", str(file), "--output", "json", stdout=out)
    (document,) = json.loads(out.getvalue())["documents"]
    assert {one["pointer"] for one in document["errors"]} == expected
    client.force_login(admin_user)
    page = client.post(reverse("new-workload"), {"do": "save", "seen": "", "json": json.dumps({**BODY, **asked})})
    assert page.status_code == 422
    assert all(f"<code>{pointer}</code>" in page.content.decode() for pointer in expected)
    assert list(Workload.objects.values_list("pk", flat=True)) == ["old"]
    assert WorkloadVersion.objects.count() == 1


GIVEN = [
    {
        "entrypoint": ["/bin/sh", "-c", "a  b"],
        "workingDir": "/",
        "init": "image",
        "stopSignal": "SIGQUIT",
        "healthCheck": {"command": ["true"], "intervalMs": 1000, "timeoutMs": 2000, "retries": 1, "startPeriodMs": 0},
        "user": {"uid": None, "gid": 0, "groups": [44, 0], "name": "app", "home": "/state"},
    },
    {
        "entrypoint": [],
        "workingDir": "/srv/app",
        "init": True,
        "stopSignal": "SIGRTMIN+3",
        "healthCheck": None,
        "user": {"uid": 1000, "gid": None, "groups": [], "name": None, "home": None},
    },
    {"entrypoint": None, "workingDir": None, "init": True, "stopSignal": None, "healthCheck": "image", "user": None},
]


@pytest.mark.parametrize("given", GIVEN, ids=["given", "other", "nothing"])
def test_what_is_given_is_shown_and_an_untouched_form_changes_nothing(client, admin_user, call, given):
    """Through the API and through the editor's form."""
    made = call("POST", "workloads", {**BODY, **given})
    assert made.status_code == 201, made.content
    assert {name: made.json()[name] for name in given} == given
    again = call("PUT", "workloads/w", made.json())
    assert (again.status_code, again.json()["version"]) == (200, 1)
    client.force_login(admin_user)
    assert saved_untouched(client) == 303
    shown = call("GET", "workloads/w").json()
    assert {name: shown[name] for name in given} == given
    assert shown["version"] == 1


def saved_untouched(client, do: str = "save", **typed: str) -> int:
    """Send the editor's form as it was rendered, with some values changed; return the status."""
    from boilerhouse.dashboard.documents import Document
    from boilerhouse.dashboard.sections import workloads as sections
    from pools.api.serializers import WorkloadInput, render_workload

    page = client.get(reverse("edit-workload", args=["w"]))
    assert page.context["document"].tab == "form"
    shown = render_workload(Workload.objects.with_latest().get(pk="w"))
    value = {name: one for name, one in shown.items() if name not in WorkloadInput.read_only_ignored}
    document = Document(value, sections.sections_of(is_new=False))
    data = {"do": do, "seen": page.context["seen"], "document": document.text}
    for part in document._fields():
        if part.part.kind != "flag" or part.is_on:
            data[part.pointer] = "on" if part.part.kind == "flag" else part.text
            if part.unit:
                data[f"{part.pointer}:unit"] = part.unit
    data |= typed
    return client.post(reverse("edit-workload", args=["w"]), data).status_code


def test_a_health_check_left_out_is_the_images_and_null_is_none(client, admin_user, call):
    """Three things to say, each by one spelling in the answer; only one that means something else is a new version."""
    shown = call("POST", "workloads", BODY).json()
    assert shown["healthCheck"] == "image"
    left_out = {name: one for name, one in shown.items() if name != "healthCheck"}
    own = {"command": ["true"]}
    steps = [(shown, "image", 1), (left_out, "image", 1), ({**shown, "healthCheck": None}, None, 2)]
    steps += [
        ({**shown, "healthCheck": None}, None, 2),
        ({**shown, "healthCheck": own}, own, 3),
        (left_out, "image", 4),
    ]
    for body, expected, number in steps:
        found = call("PUT", "workloads/w", body).json()
        check = found["healthCheck"]
        assert (check and {"command": check["command"]} if isinstance(check, dict) else check) == expected
        assert found["version"] == number
    specs = [version.spec for version in WorkloadVersion.objects.order_by("number")]
    assert [(one.health_check is not None, one.is_health_check_off) for one in specs] == [
        (False, False), (False, True), (True, False), (False, False),
    ]  # fmt: skip

    client.force_login(admin_user)
    for typed, expected in (("off", None), ("image", "image")):
        assert saved_untouched(client, **{"/healthCheck": typed}) == 303
        assert call("GET", "workloads/w").json()["healthCheck"] == expected
    assert saved_untouched(client, do="add:/healthCheck") == 200
    assert call("GET", "workloads/w").json()["version"] == 6


NEW_FIELDS = ("entrypoint", "working_dir", "init", "stop_signal", "is_health_check_off", "user")


def test_a_version_stored_before_is_the_same_and_stays_it(call):
    """Versions stored without the new fields keep their meaning, and sending them back creates no new version."""
    workload = make_workload("w")
    version = workload.latest
    stored = {name: value for name, value in version.spec_json.items() if name not in NEW_FIELDS}
    WorkloadVersion.objects.update(spec_json=stored)
    spec = workload.latest.spec
    assert spec == version.spec == make_spec()
    assert (spec.entrypoint, spec.working_dir, spec.init, spec.stop_signal) == (None, None, True, None)
    assert (spec.health_check, spec.is_health_check_off) == (None, False)
    assert (spec.fixed_uid, spec.owner(5), spec.user.groups) == (None, (5, 5), ())
    again = call("PUT", "workloads/w", call("GET", "workloads/w").json())
    assert (again.status_code, again.json()["version"]) == (200, 1)
    assert WorkloadVersion.objects.get().spec_json == stored


# Containers that do not last -------------------------------------------------------------------------


def warm(pool, **over):
    return make_container(pool, state=ContainerState.IDLE, **over)


def fails(container, fault=Fault.EXIT):
    assert health_reports.report_fault(container.pk, fault, "The container's main process ended with exit code 1.")


def fresh(pool) -> Pool:
    return Pool.objects.get(pk=pool.pk)


def test_a_pool_whose_warm_containers_do_not_last_says_so_and_backs_off(data_dir):
    """The third failure in a row is reported, and each next start waits longer, however often a container becomes
    warm."""
    pool = make_pool("churns", min_size=1)
    waits = []
    for number in range(5):
        Pool.objects.update(next_start_at=None)
        container = make_container(fresh(pool), state=ContainerState.STARTING)
        assert lifecycle._proved(fresh(pool), container) is False
        Container.objects.filter(pk=container.pk).update(state=ContainerState.IDLE)
        fails(container)
        found = fresh(pool)
        waits.append((found.next_start_at - clock.now()).total_seconds())
        assert found.trouble == (Trouble.UNSTABLE if number >= 2 else "")
        assert sizing._parallel(found) == 0, "it rests"
    assert waits == sorted(waits)
    assert waits[-1] > 20
    assert "become warm and then fail. The container's main process ended with exit code 1." in fresh(pool).last_error
    assert Pool.objects.with_counts().get(pk="churns").status().state in (PoolState.ERROR, PoolState.DEGRADED)
    assert [e.payload["trouble"] for e in Event.objects.filter(type="pool.warning")] == ["unstable"]

    steady = warm(pool, created_at=clock.now() - stability.STAYS * 2)
    assert sizing.is_off(fresh(pool))
    sizing.refill("churns")
    found = fresh(pool)
    assert (found.trouble, found.failures, found.next_start_at, found.last_error) == ("", 0, None, "")
    assert [e.payload["trouble"] for e in Event.objects.filter(type="pool.recovered")] == ["unstable"]
    fails(warm(pool))
    assert fresh(pool).failures == 0, "others last: it was this one"
    fails(steady)
    assert fresh(pool).failures == 0, "it has lasted"


def test_what_was_one_accident_or_a_tenants_doing_slows_nothing(data_dir):
    """The engine's restart, a container that somebody removed, and what a tenant does to its own."""
    pool = make_pool("steady", min_size=3)
    first, second = warm(pool), warm(pool)
    fails(first)
    fails(second)
    assert (fresh(pool).failures, fresh(pool).trouble) == (1, ""), "what fails together is one"
    Pool.objects.update(failures=0, next_start_at=None)
    fails(warm(pool), Fault.VANISHED)
    fails(make_container(pool, state=ContainerState.CLAIMED), Fault.OOM)
    assert (fresh(pool).failures, fresh(pool).trouble) == (0, "")


def test_a_new_version_and_a_resume_begin_anew(data_dir):
    """The count was about the previous version."""
    pool = make_pool("anew", min_size=1, failures=4, trouble=Trouble.UNSTABLE, last_error="Containers become warm …")
    version = pool.workload.latest
    newer = WorkloadVersion.objects.create(workload=pool.workload, number=2, spec_json=version.spec_json)
    container = make_container(fresh(pool), version=newer, state=ContainerState.STARTING)
    assert lifecycle._proved(fresh(pool), container) is True
    assert (fresh(pool).failures, fresh(pool).trouble) == (0, "")
    Pool.objects.update(failures=4, trouble=Trouble.UNSTABLE, last_error="x")
    services.resume("anew")
    assert (fresh(pool).failures, fresh(pool).trouble) == (0, "")

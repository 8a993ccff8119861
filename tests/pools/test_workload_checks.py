"""The mounts that a workload may have: checked on save, and again before a container of a stored version starts."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from boilerhouse.core.models import Event
from pools import firewall, lifecycle, mounts, nodes, sizing, volumes
from pools.errors import CannotMount
from pools.models import Container, Pool, Workload, WorkloadVersion
from pools.runtime.base import Image
from pools.states import ContainerState, PoolState, Trouble
from syncing.errors import VolumeInside
from syncing.models import SyncSpec
from syncing.restores import restore
from syncing.sink_checks import SinkState
from syncing.states import Trigger
from syncing.targets import TransferTarget
from tests.api_calls import refused_fields
from tests.make import make_container, make_pool, make_spec, make_sync_spec, make_workload

pytestmark = pytest.mark.any_database


def mounted(path, **more):
    return {"containerPath": path, **more}


STATE, SECRETS, COMM = ("/volumes/state/containerPath", "/volumes/secrets/containerPath", "/volumes/comm/containerPath")
FIRST, SECOND = ("/volumes/custom/0/containerPath", "/volumes/custom/1/containerPath")


def custom(*paths):
    return [mounted(path, name=f"c{number}") for number, path in enumerate(paths)]


REFUSED = [
    # volumes inside volumes, whichever kinds they are
    ({"state": mounted("/state"), "secrets": mounted("/state/.secrets")}, {SECRETS: "overlap"}),
    ({"state": mounted("/state"), "custom": custom("/state/cache")}, {FIRST: "overlap"}),
    ({"state": mounted("/a/b/c"), "comm": mounted("/a")}, {STATE: "overlap"}),
    ({"state": mounted("/run/secrets/x"), "secrets": mounted("/run/secrets")}, {STATE: "overlap"}),
    ({"custom": custom("/a/b", "/a")}, {FIRST: "overlap"}),
    ({"custom": custom("/a", "/a/b", "/a/b/c")}, {FIRST: None, SECOND: "overlap", "/volumes/custom/2/containerPath": "overlap"}),
    ({"state": mounted("/state"), "comm": mounted("/state")}, {COMM: "duplicate"}),
    ({"custom": custom("/a", "/a")}, {SECOND: "duplicate"}),
    # what something else covers, or what would cover it
    *(
        ({"state": mounted(path)}, {STATE: "covered"})
        for path in (
            "/tmp", "/tmp/x", "/proc", "/proc/x", "/sys", "/sys/fs/cgroup", "/dev", "/dev/shm", "/dev/shm/x", "/etc",
            "/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/.dockerenv", "/sbin", "/sbin/docker-init",
        )
    ),
    ({"custom": custom("/x", "/tmp")}, {SECOND: "covered"}),
    ({"secrets": mounted("/tmp/secrets")}, {SECRETS: "covered"}),
    # another way to write a place that is taken
    *(
        ({"state": mounted(path)}, {STATE: "invalid"})
        for path in (
            "/", "//", "///", "//proc", "//sys", "//run/secrets/x", "//state", "/state/", "/./state", "/a//b", "/a/../b",
            "/..", "state", "./state", "/a\nb", "/state\n", " /state", "/a\u0085b", "/a\x1bb", "/a\x7f", "/" + "a" * 400,
        )
    ),
    *(({"custom": [mounted("/c", name=name)]}, {"/volumes/custom/0/name": "invalid"}) for name in ("x\n", " x", "a b")),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "expected"), REFUSED, ids=lambda one: json.dumps(one)[:60])
def test_what_cannot_be_mounted_is_refused_at_every_door(call, tmp_path, asked, expected):
    """No volume inside another, none at a covered path, and one spelling of a path."""
    make_workload("old")
    body = {"id": "w", "name": "w", "image": "nothing:1", "pullPolicy": "never", "volumes": asked}
    wanted = {(pointer, code) for pointer, code in expected.items() if code}

    said, found = refused_fields(call("POST", "workloads", body))
    # a path that is too long or not normal has one error; what it would cover is beside the point then
    assert wanted <= {(pointer, "invalid" if code == "max_length" else code) for pointer, code in said}, found
    assert not {pointer for pointer, code in expected.items() if not code} & {pointer for pointer, _ in said}
    assert all(one["detail"] for one in found["errors"])
    assert refused_fields(call("PUT", "workloads/old", {**body, "id": "old"}))[0] == said

    file = tmp_path / "w.yaml"
    file.write_text(json.dumps({"kind": "Workload", **body}))
    for more in ([], ["--dry-run"]):
        out = io.StringIO()
        with pytest.raises(CommandError):
            call_command("apply", str(file), *more, "--output", "json", stdout=out)
        (document,) = json.loads(out.getvalue())["documents"]
        assert {(one["pointer"], one["code"]) for one in document["errors"]} == said
    assert list(Workload.objects.values_list("pk", flat=True)) == ["old"]
    assert WorkloadVersion.objects.count() == 1


@pytest.mark.parametrize(
    "asked",
    [
        {"state": mounted("/state"), "secrets": mounted("/run/secrets"), "custom": custom("/run/nginx", "/var/lib/x")},
        {"state": mounted("/state"), "comm": mounted("/State"), "custom": custom("/state2", "/STATE", "/stat")},
        {"custom": custom("/run", "/var/log/nginx", "/tmp2", "/process", "/devices", "/etc/hosts.d", "/a b,c:d")},
    ],
)
def test_volumes_beside_each_other_are_taken(call, asked):
    """Paths with a common prefix of characters, or that differ in case, are not nested."""
    body = {"id": "w", "name": "w", "image": "nothing:1", "pullPolicy": "never", "volumes": asked}
    assert call("POST", "workloads", body).status_code == 201


def test_the_editor_says_it_too(client, admin_user, data_dir):
    """The page has the same validator, and shows the error at the inner volume."""
    client.force_login(admin_user)
    body = {"name": "w", "image": "nothing:1", "volumes": {"state": mounted("/s"), "custom": custom("/s/cache")}}
    answer = client.post(reverse("new-workload"), {"json": json.dumps(body), "do": "save"})
    assert answer.status_code == 422
    assert "/volumes/custom/0/containerPath" in answer.content.decode()
    assert not Workload.objects.exists()


# Versions that were stored before --------------------------------------------------------------------

NESTED = [
    {"name": "state", "container_path": "/state", "mode": "rw"},
    {"name": "cache", "container_path": "/state/cache", "mode": "rw"},
]
AT_TMP = [{"name": "state", "container_path": "/tmp", "mode": "rw"}]


@pytest.fixture
def engine(data_dir, fake_engine, monkeypatch):
    monkeypatch.setattr(firewall, "apply", lambda network: None)
    monkeypatch.setattr(nodes.Host, "ensure_ram_dir", lambda: None)
    (data_dir / "ram").mkdir()
    return fake_engine


@pytest.mark.parametrize(("stored", "pointer"), [(NESTED, FIRST), (AT_TMP, STATE)])
def test_no_container_of_a_stored_version_starts_whose_volumes_would_lose_state(engine, stored, pointer):
    """The pool reports the volume and the reason once; assigned containers are not touched."""
    pool = make_pool(workload=make_workload(volumes=stored), min_size=2)
    held = make_container(pool, state=ContainerState.CLAIMED)
    sizing.refill(pool.pk)
    starting = Container.objects.filter(state=ContainerState.STARTING)
    for row in list(starting):
        assert not lifecycle.start_container(row.pk)

    pool = Pool.objects.with_counts().get(pk=pool.pk)
    assert pool.status().state == PoolState.ERROR
    assert pool.trouble == Trouble.START_FAILED
    assert pointer in pool.last_error
    assert pool.last_error.startswith("Save the workload with other paths")
    assert Event.objects.filter(type="pool.warning", payload__detail=pool.last_error).count() == 1
    assert not engine.creates
    held.refresh_from_db()
    assert held.state == ContainerState.CLAIMED


def test_a_restore_around_a_mounted_volume_is_refused_before_its_first_byte(data_dir):
    """For a warm container of an earlier version: moving files in would remove the inner mount."""
    pool = make_pool(workload=make_workload(volumes=NESTED))
    container = make_container(pool)
    spec = make_sync_spec(pool)
    workload = container.version.spec
    volumes.prepare(container.pk, container.uid, workload)
    target = TransferTarget(
        container.pk, workload.owner(container.uid), pool.pk, workload, "alice", 1, -1, nodes.here(), False
    )
    sink_state = SinkState(spec.mappings.get(), spec.resolved_sink(), "t/alice/state/", None, True)
    with pytest.raises(VolumeInside, match="cache"):
        restore(target, [sink_state], Trigger.CLAIM, lambda: True)
    assert not list(volumes.staging_dir(container.pk).iterdir())


def test_a_mapping_around_another_volume_is_refused(call, monkeypatch):
    """Also for versions stored earlier."""
    pool = make_pool("p", workload=make_workload(volumes=NESTED))
    sink = {"type": "s3", "bucket": "bucket", "region": "us-east-1", "prefix": "t/${tenantId}/"}
    sink |= {"endpoint": "http://127.0.0.1:1", "accessKeyId": "AKID", "secretAccessKey": "secret"}
    mapping = {"containerPath": "/state", "sinkPath": "state/", "direction": "bidirectional", "mode": "sync"}
    body = {"id": "s", "poolId": pool.pk, "mappings": [mapping], "sink": sink, "policy": {"onClaim": True}}
    said, _ = refused_fields(call("POST", "sync-specs", body))
    assert said == {("/mappings/0/containerPath", "overlap")}
    assert not SyncSpec.objects.exists()


def test_a_spec_that_nests_is_never_what_a_program_builds():
    """The table applies to specs built in code as well."""
    image = Image("sha256:1")
    mounts.check(make_spec(), image)
    with pytest.raises(CannotMount, match="/state/cache is inside the volume state"):
        mounts.check(make_spec(volumes=NESTED), image)


# VOLUMEs of images ------------------------------------------------------------------------------------

ONE = [{"name": "state", "container_path": "/state", "mode": "rw"}]
DECLARED = [
    # what the image declares, where nothing is mounted, pointers of what is in the way
    ([], [], []),
    (["/state"], [], []),
    (["/state/", "//state", "/x/../state"], [], []),
    (["/data"], ["/data"], []),
    (["/b", "/a/", "/a", "//b"], ["/a", "/b"], []),
    (["/a", "/a/b", "/a/b/c"], ["/a", "/a/b", "/a/b/c"], []),
    (["/State", "/state2"], ["/State", "/state2"], []),
    (["/tmp", "/tmp/x"], ["/tmp/x"], []),
    (["/state/db"], [], [STATE]),
    (["/run/secrets"], ["/run/secrets"], []),
    (["/"], [], ["/image"]),
    (["/.."], [], ["/image"]),
    (["//"], [], ["/image"]),
    (["data"], [], ["/image"]),
    ([""], [], ["/image"]),
    (["/proc"], [], ["/image"]),
    (["/x/../proc/self"], [], ["/image"]),
    (["/dev/shm"], [], ["/image"]),
    (["/etc"], [], ["/image"]),
    (["/etc/hosts"], [], ["/image"]),
    (["/a\nb"], [], ["/image"]),
    (["/" + "a" * 400], [], ["/image"]),
    ([f"/v{n:02}" for n in range(51)], None, ["/image"]),
]


@pytest.mark.parametrize(("image_volumes", "bare", "wrong"), DECLARED, ids=lambda one: repr(one)[:50])
def test_volumes_of_an_image_beside_those_of_a_workload(image_volumes, bare, wrong):
    """Each is a volume of the workload, memory of its own, or a reason to refuse; however it is written."""
    found = mounts.declared(make_spec(volumes=ONE), image_volumes)
    assert bare is None or found.bare == bare
    assert [(one.pointer, one.code) for one in found.wrong] == [(pointer, "image_volume") for pointer in wrong]
    assert found.in_memory == {"/tmp"} & set(image_volumes)


def test_a_volume_of_the_image_around_one_of_the_workload_is_in_the_way():
    """Part of the files there would be saved and part would not."""
    volumes = [*ONE, {"name": "deep", "container_path": "/var/lib/db/data", "mode": "rw"}]
    found = mounts.declared(make_spec(volumes=volumes), ["/var/lib/db", "/state"])
    assert [(one.pointer, one.code) for one in found.wrong] == [(FIRST, "image_volume")]
    assert "Mount the volume at /var/lib/db." in found.wrong[0].detail


def test_an_image_that_declares_something_else_by_the_same_name_is_looked_at_before_each_start(engine):
    """Reported once per version, again when the image changes, and kept until it is resolved."""
    pool = make_pool(workload=make_workload(volumes=ONE), min_size=1)
    image = pool.workload.latest.spec.image
    said = []
    for declared in (("/data",), ("/data",), ("/data", "/more"), ("/state/db",), ()):
        engine.declared[image] = declared
        Pool.objects.update(next_start_at=None)
        sizing.refill(pool.pk)
        row = Container.objects.get(state=ContainerState.STARTING)
        started = lifecycle.start_container(row.pk)
        assert started == (declared != ("/state/db",))
        pool = Pool.objects.with_counts().get(pk=pool.pk)
        warnings = Event.objects.filter(type="pool.warning", payload__code="image_volume").order_by("-pk")
        said.append((warnings.count(), [one.detail.split(",")[0].split()[-1] for one in pool.status().warnings]))
        assert WorkloadVersion.objects.get().image_volumes == list(declared)
        Container.objects.all().delete()
    assert said == [(1, ["/data"]), (1, ["/data"]), (2, ["/data", "/more"]), (2, ["/data", "/more"]), (2, [])]
    plan = engine.creates[2]
    assert [(one.path, one.mode, one.uid, one.is_declared) for one in plan.tmpfs] == [
        ("/tmp", 0o1777, 0, False), ("/data", 0o700, plan.uid, True), ("/more", 0o700, plan.uid, True),
    ]  # fmt: skip
    assert plan.image == f"sha256:{image}", "a tag that moves between the look and the create changes nothing"

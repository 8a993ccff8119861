"""Engine options of a workload: validated at every entry point, and effective in the container."""

from __future__ import annotations

import contextlib
import io
import ipaddress
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import requests
from django.core.management import CommandError, call_command
from django.urls import reverse

import docker
from boilerhouse.core.models import Settings
from pools import checks, host, lifecycle, limits
from pools.api.serializers import WorkloadInput, render_spec
from pools.errors import CannotGive
from pools.models import Container, Workload, WorkloadVersion
from pools.runtime.base import Image
from pools.runtime.docker import comparison, request, translated
from pools.spec import Gpus, WorkloadSpec
from tests.api_calls import refused_fields
from tests.make import SPEC, make_pool, make_spec, make_workload
from tests.real_engine import SLEEP

pytestmark = pytest.mark.any_database

MEMORY = {"resources": {"memoryMb": 64}}
STATE = {"volumes": {"state": {"containerPath": "/state"}}}


def at(path, **more):
    return {"path": path, "sizeMb": 1, **more}


def nofile(hard, **more):
    return {"ulimits": [{"name": "nofile", "hard": hard, **more}]}


REFUSED = [
    # shared memory
    ({"resources": {"memoryMb": 64, "shmMb": 65}}, {"/resources/shmMb": "out_of_range"}),
    ({"resources": {"shmMb": 0}}, {"/resources/shmMb": "min_value"}),
    ({"resources": {"shmMb": "much"}}, {"/resources/shmMb": "invalid"}),
    # directories in memory
    ({"resources": {"memoryMb": 64, "shmMb": 60}, "tmpfs": [at("/a", sizeMb=5)]}, {"/tmpfs/0/sizeMb": "out_of_range"}),
    ({"tmpfs": [{"path": "/a"}]}, {"/tmpfs/0/sizeMb": "required"}),
    ({"tmpfs": [at("/a"), at("/a")]}, {"/tmpfs/1/path": "duplicate"}),
    ({"tmpfs": [at("/a"), at("/a/b")]}, {"/tmpfs/1/path": "overlap"}),
    ({**STATE, "tmpfs": [at("/state")]}, {"/tmpfs/0/path": "duplicate"}),
    ({**STATE, "tmpfs": [at("/state/cache")]}, {"/tmpfs/0/path": "overlap"}),
    ({"volumes": {"state": {"containerPath": "/a/b"}}, "tmpfs": [at("/a")]}, {"/volumes/state/containerPath": "overlap"}),
    *(({"tmpfs": [at(path)]}, {"/tmpfs/0/path": "covered"}) for path in (
        "/dev/shm", "/dev", "/proc", "/proc/x", "/sys", "/tmp/x", "/etc", "/etc/hosts", "/sbin/docker-init")),
    *(({"tmpfs": [at(path)]}, {"/tmpfs/0/path": "invalid"}) for path in ("/", "x", "/a/", "/a/../b", "/a\nb", "//a")),
    ({"tmpfs": [at(f"/t{n}") for n in range(21)]}, {"/tmpfs": "max_length"}),
    # limits of processes
    (nofile(65_537), {"/ulimits/0/hard": "not_allowed"}),
    (nofile(-1), {"/ulimits/0/hard": "not_allowed"}),
    (nofile(100, soft=200), {"/ulimits/0/soft": "out_of_range"}),
    (nofile(100, soft=-1), {"/ulimits/0/soft": "out_of_range"}),
    (nofile(63), {"/ulimits/0/soft": "out_of_range"}),
    (nofile(2**63), {"/ulimits/0/hard": "max_value"}),
    ({"ulimits": [{"name": "rtprio", "hard": 1}]}, {"/ulimits/0/hard": "not_allowed"}),
    ({"ulimits": [{"name": "core", "hard": -1}]}, {"/ulimits/0/hard": "not_allowed"}),
    ({"ulimits": [{"name": "files", "hard": 1}]}, {"/ulimits/0/name": "invalid_choice"}),
    ({"ulimits": [{"name": "cpu", "hard": 1}, {"name": "cpu", "hard": 2}]}, {"/ulimits/1/name": "duplicate"}),
    ({"ulimits": [{"name": "cpu", "hard": 1}] * 16}, {"/ulimits": "max_length"}),
    # devices and GPUs, off by default
    ({"devices": [{"path": "/dev/fuse"}]}, {"/devices/0/path": "not_allowed"}),
    ({"devices": [{"path": "/dev/../etc"}]}, {"/devices/0/path": "invalid"}),
    ({"devices": [{"path": "/etc/passwd"}]}, {"/devices/0/path": "invalid"}),
    ({"devices": [{"path": "/dev/fuse", "permissions": "rwm"}]}, {"/devices/0/permissions": "invalid_choice"}),
    ({"resources": {"gpus": {}}}, {"/resources/gpus": "not_allowed"}),
    ({"resources": {"gpus": {"count": 0}}}, {"/resources/gpus/count": "out_of_range"}),
    ({"resources": {"gpus": {"count": 1, "ids": ["0"]}}}, {"/resources/gpus/count": "invalid"}),
    # names of hosts, resolvers: never where the network policy forbids
    ({"extraHosts": {"a b": "192.0.2.1"}}, {"/extraHosts/a b": "invalid"}),
    ({"extraHosts": {"-a": "192.0.2.1"}}, {"/extraHosts/-a": "invalid"}),
    ({"extraHosts": {"a:b": "192.0.2.1"}}, {"/extraHosts/a:b": "invalid"}),
    ({"extraHosts": {"a\n10.0.0.1 b": "192.0.2.1"}}, {"/extraHosts/a\n10.0.0.1 b": "invalid"}),
    ({"extraHosts": {"localhost": "192.0.2.1"}}, {"/extraHosts/localhost": "not_allowed"}),
    *(({"extraHosts": {"a": address}}, {"/extraHosts/a": code}) for address, code in (
        ("host-gateway", "invalid"), ("a.example", "invalid"), ("", "invalid"), ("192.0.2.1 b", "invalid"),
        ("169.254.169.254", "not_allowed"), ("::ffff:169.254.169.254", "not_allowed"), ("fe80::1", "not_allowed"),
        ("fd00:ec2::254", "not_allowed"), ("64:ff9b::a9fe:a9fe", "not_allowed"), ("2002:a9fe:a9fe::1", "not_allowed"),
        ("0.0.0.0", "invalid"), ("::", "invalid"), ("224.0.0.1", "invalid"), ("255.255.255.255", "invalid"))),
    *(({"dns": [address]}, {"/dns/0": code}) for address, code in (
        ("127.0.0.53", "not_allowed"), ("::1", "not_allowed"), ("169.254.169.253", "not_allowed"), ("a.b", "invalid"))),
    ({"dns": ["192.0.2.1"] * 4}, {"/dns": "max_length"}),
    ({"dns": ["192.0.2.1"], "security": {"networkMode": "none"}}, {"/dns": "not_allowed"}),
    # labels
    *(({"labels": {name: "x"}}, {f"/labels/{name}": code}) for name, code in (
        ("boilerhouse.pool", "not_allowed"), ("Boilerhouse.x", "not_allowed"), ("boilerhouse", "not_allowed"),
        ("com.docker.compose.project", "not_allowed"), ("a=b", "invalid"), ("", "invalid"), ("a b", "invalid"))),
    ({"labels": {"a": "x\ny"}}, {"/labels/a": "invalid"}),
    ({"labels": {f"l{n}": "" for n in range(101)}}, {"/labels": "max_length"}),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "expected"), REFUSED, ids=lambda one: json.dumps(one)[:60])
def test_what_cannot_be_given_is_refused_at_every_door(call, tmp_path, asked, expected):
    """With the pointer of the field and its reason, by API, apply and the editor; nothing has changed."""
    make_workload("old")
    body = {"id": "w", "name": "w", "image": "nothing:1", "pullPolicy": "never", **MEMORY, **asked}
    said, found = refused_fields(call("POST", "workloads", body))
    assert said == set(expected.items()), found
    assert all(one["detail"] for one in found["errors"])
    assert refused_fields(call("PUT", "workloads/old", {**body, "id": "old"}))[0] == said
    file = tmp_path / "w.yaml"
    file.write_text(json.dumps({"kind": "Workload", **body}))
    out = io.StringIO()
    with pytest.raises(CommandError):
        call_command("apply", str(file), "--output", "json", stdout=out)
    (document,) = json.loads(out.getvalue())["documents"]
    assert {(one["pointer"], one["code"]) for one in document["errors"]} == said
    assert list(Workload.objects.values_list("pk", flat=True)) == ["old"]
    assert WorkloadVersion.objects.count() == 1


FULL = {
    "resources": {"memoryMb": 128, "shmMb": 24, "gpus": {"count": -1}},
    "tmpfs": [{"path": "/scratch", "sizeMb": 8, "exec": True}, {"path": "/tmp", "sizeMb": 4}],
    "ulimits": [{"name": "nofile", "soft": 1000, "hard": 20_000}, {"name": "memlock", "hard": -1}],
    "devices": [{"path": "/dev/fuse"}],
    "extraHosts": {"db.internal": "192.0.2.7", "v6.internal": "2001:db8::7", "blocked.example": "127.0.0.1"},
    "dns": ["192.0.2.53", "2001:db8::53"],
    "labels": {"org.example.team": "blue", "x": ""},
}


def allow(settings):
    settings.BOILERHOUSE_ALLOWED_DEVICES = ["/dev/fuse", "gpus"]


def test_what_is_given_comes_back_and_may_be_sent_again(call, client, admin_user, settings):
    """Through the API and the editor's form, which shows and keeps each field; sent back it creates no new version."""
    allow(settings)
    made = call("POST", "workloads", {"id": "w", "name": "w", "image": "nothing:1", "pullPolicy": "never", **FULL})
    assert made.status_code == 201, made.content
    shown = made.json()
    assert shown["resources"]["shmMb"] == 24
    assert shown["resources"]["gpus"] == {"count": -1, "ids": []}
    assert shown["tmpfs"] == [
        {"path": "/scratch", "sizeMb": 8, "exec": True},
        {"path": "/tmp", "sizeMb": 4, "exec": False},
    ]
    assert shown["ulimits"][1] == {"name": "memlock", "soft": -1, "hard": -1}
    assert shown["devices"] == [{"path": "/dev/fuse", "permissions": "rw"}]
    assert {name: shown[name] for name in ("extraHosts", "dns", "labels")} == {
        n: FULL[n] for n in ("extraHosts", "dns", "labels")
    }
    assert call("PUT", "workloads/w", shown).json()["version"] == 1

    client.force_login(admin_user)
    page = client.get(reverse("edit-workload", args=["w"])).content.decode()
    for name in ("/resources/shmMb", "/resources/gpus/count", "/tmpfs/1/sizeMb", "/ulimits/0/soft", "/devices/0/path"):
        assert f'name="{name}"' in page, name
    for name in ("/extraHosts", "/dns", "/labels"):
        assert f'name="{name}"' in page, name


def test_the_editor_says_it_at_the_field(client, admin_user, data_dir):
    """The page has the same validator."""
    client.force_login(admin_user)
    body = {"name": "w", "image": "nothing:1", **nofile(10**6)}
    answer = client.post(reverse("new-workload"), {"json": json.dumps(body), "do": "save"})
    assert answer.status_code == 422
    assert "/ulimits/0/hard" in answer.content.decode()
    assert not Workload.objects.exists()


def test_a_deployment_sets_how_high_limits_may_go(call, settings):
    """Removed options are refused for new workloads at once."""
    settings.BOILERHOUSE_MAX_ULIMITS = {"nofile": -1, "cpu": 60}
    body = {"id": "w", "name": "w", "image": "nothing:1", "pullPolicy": "never"}
    assert call("POST", "workloads", {**body, **nofile(-1)}).status_code == 201
    assert refused_fields(call("PUT", "workloads/w", {**body, "ulimits": [{"name": "cpu", "hard": -1}]}))[0] == {
        ("/ulimits/0/hard", "not_allowed")
    }
    assert limits.ceilings()["rtprio"] == 0


def test_devices_are_narrowed_while_it_runs_and_never_widened(call, settings):
    """Like runtimes and networks."""
    allow(settings)
    shown = call("GET", "settings").json()
    assert shown["allowedDevices"] == ["/dev/fuse", "gpus"]
    assert call("PUT", "settings", {**shown, "allowedDevices": ["gpus"]}).json()["allowedDevices"] == ["gpus"]
    body = {"id": "w", "name": "w", "image": "nothing:1", "pullPolicy": "never"}
    assert refused_fields(call("POST", "workloads", {**body, "devices": [{"path": "/dev/fuse"}]}))[0] == {
        ("/devices/0/path", "not_allowed")
    }
    assert refused_fields(call("PUT", "settings", {**shown, "allowedDevices": ["/dev/sda"]}))[0] == {
        ("/allowedDevices/0", "not_allowed")
    }
    settings.BOILERHOUSE_ALLOWED_DEVICES = []
    assert call("GET", "settings").json()["allowedDevices"] == []


def test_a_version_stored_before_these_fields_is_what_it_was(call):
    """Absent fields keep the former behaviour: the request is unchanged, and saving again changes nothing."""
    before = {**SPEC, "resources": {"cpus": 1.0, "memory_mb": 512, "pids_limit": 256, "tmpfs_mb": 48, "disk_mb": None}}
    stored = WorkloadSpec.from_json(before)
    body = WorkloadInput(data={"name": "w", **render_spec(stored)})
    assert body.is_valid(), body.errors
    assert body.to_spec() == stored
    pool = make_pool(workload=make_workload(resources=before["resources"]))
    row = Container(pool=pool, version=pool.workload.latest, uid=200_001)
    plan = lifecycle.plan_of(row, stored, "none", Image("sha256:1"))
    assert (plan.shm_mb, plan.ulimits, plan.devices, plan.gpus, plan.extra_hosts, plan.dns) == (
        48,
        (),
        (),
        None,
        (),
        (),
    )
    assert [(one.path, one.size_mb, one.is_exec) for one in plan.tmpfs] == [("/tmp", 48, False)]
    assert all(name.startswith("boilerhouse.") for name in plan.labels)


def test_a_stored_version_starts_no_more_once_the_deployment_forbids_its_device(engine, settings):
    """The pool names the option that was removed from the allowed list."""
    allow(settings)
    Settings.objects.update_or_create(pk=1, defaults={"values": {"allowed_devices": ["gpus"]}})
    row, pool = engine.start(devices=[{"path": "/dev/fuse", "permissions": "rw"}])
    assert row is None
    assert "/devices/0/path" in pool.last_error
    assert engine.names() == []


# What the container sees -----------------------------------------------------------------------------


def test_the_container_sees_what_was_asked(engine, settings):
    """Sizes, flags, limits, device, hosts, labels on a real engine; all other options stay hardened."""
    settings.BOILERHOUSE_ALLOWED_DEVICES = ["/dev/zero", "/dev/full"]
    row, pool = engine.start(
        command=["sh", "-c", f"ulimit -Sn > /tmp/limits; ulimit -Hn >> /tmp/limits; {SLEEP[-1]}"],
        resources={"memory_mb": 128, "shm_mb": 24, "tmpfs_mb": 16},
        tmpfs=[
            {"path": "/scratch", "size_mb": 8, "exec": True},
            {"path": "/var/cache/x", "size_mb": 4, "exec": False},
        ],
        ulimits=[{"name": "nofile", "soft": 1000, "hard": 20_000}, {"name": "fsize", "soft": 7 << 20, "hard": 8 << 20}],
        devices=[{"path": "/dev/zero", "permissions": "rw"}, {"path": "/dev/full", "permissions": "r"}],
        extra_hosts={"db.internal": "192.0.2.7", "v6.internal": "2001:db8::7"},
        labels={"org.example.team": "blue"},
    )
    assert row, pool.last_error
    mounts = {line.split()[1]: line.split() for line in engine.run(row, "cat /proc/mounts").splitlines()}
    hard = {"nosuid", "nodev", "noexec"}
    expected = {
        "/dev/shm": (24, hard),
        "/tmp": (16, hard),
        "/var/cache/x": (4, hard),
        "/scratch": (8, hard - {"noexec"}),
    }
    for path, (size_mb, flags) in expected.items():
        options = set(mounts[path][3].split(","))
        assert mounts[path][2] == "tmpfs"
        assert f"size={size_mb * 1024}k" in options, path
        assert hard & options == flags, path
        assert engine.run(row, f"df -k {path} | tail -1").split()[1] == str(size_mb * 1024)
    assert engine.run(row, "cat /tmp/limits; ulimit -Hn; ulimit -c").split() == ["1000", "20000", "20000", "0"]
    limits_shown = engine.run(row, "cat /proc/self/limits")
    (line,) = [one for one in limits_shown.splitlines() if one.startswith("Max file size")]
    assert line.split()[3:5] == [str(7 << 20), str(8 << 20)]
    script = "cp /bin/true /scratch/true && /scratch/true && stat -c %u:%a /scratch && cp /bin/true /tmp/true"
    assert f"{row.uid}:700" in engine.run(row, script)
    assert "Permission denied" in engine.run(row, "/tmp/true 2>&1; true")
    assert "Permission denied" in engine.run(row, "cp /bin/true /var/cache/x/true; /var/cache/x/true 2>&1; true")
    hosts = engine.run(row, "cat /etc/hosts").splitlines()
    assert {"192.0.2.7\tdb.internal", "2001:db8::7\tv6.internal"} <= set(hosts)
    found = engine.inspect(row)
    assert found["Config"]["Labels"]["org.example.team"] == "blue"
    assert found["Config"]["Labels"][lifecycle.POOL_LABEL] == pool.pk
    assert [(one["PathOnHost"], one["CgroupPermissions"]) for one in found["HostConfig"]["Devices"]] == [
        ("/dev/zero", "rw"), ("/dev/full", "r"),
    ]  # fmt: skip
    assert engine.run(row, "head -c 3 /dev/full | wc -c").strip() == "3"
    assert "NoNewPrivs:\t1" in engine.run(row, "cat /proc/self/status")
    assert "CapBnd:\t0000000000000000" in engine.run(row, "cat /proc/self/status")

    other, pool = engine.start()
    assert other, pool.last_error
    assert engine.run(other, "ulimit -Sn; ulimit -Hn").split() == ["4096", "4096"]
    assert engine.run(other, "df -k /dev/shm | tail -1").split()[1] == str(64 * 1024)
    assert not any(name.startswith("org.") for name in engine.inspect(other)["Config"]["Labels"])


def test_the_scratch_space_itself_may_hold_programs(engine):
    """Native libraries unpacked to /tmp load if the workload asks for it; /tmp stays writable to all."""
    row, pool = engine.start(tmpfs=[{"path": "/tmp", "size_mb": 32, "exec": True}])
    assert row, pool.last_error
    assert engine.run(row, "cp /bin/true /tmp/true && /tmp/true && stat -c %a /tmp").split() == ["1777"]
    assert engine.run(row, "df -k /tmp | tail -1").split()[1] == str(32 * 1024)
    (line,) = [one for one in engine.run(row, "cat /proc/mounts").splitlines() if " /tmp " in one]
    assert {"nosuid", "nodev"} <= set(line.split()[3].split(","))


def test_what_the_node_does_not_have_fails_the_start_in_plain_words(engine, settings):
    """GPUs without a toolkit, a missing device, a limit beyond the kernel's."""
    settings.BOILERHOUSE_ALLOWED_DEVICES = ["gpus", "/dev/nothing-here"]
    settings.BOILERHOUSE_MAX_ULIMITS = {"nofile": -1}
    said = {}
    for name, spec in {
        "gpus": {"resources": {"gpus": {"count": 1, "ids": []}}},
        "device": {"devices": [{"path": "/dev/nothing-here", "permissions": "rw"}]},
        "limit": {"ulimits": [{"name": "nofile", "soft": 1 << 40, "hard": 1 << 40}]},
    }.items():
        row, pool = engine.start(**spec)
        assert row is None, name
        said[name] = pool.last_error
    assert "has no GPUs" in said["gpus"]
    assert "Container Toolkit" in said["gpus"]
    assert "/dev/nothing-here" in said["device"]
    assert "The node lacks a device" in said["device"]
    assert "kernel refuses a limit" in said["limit"]
    assert not any("command" in text for text in said.values()), said
    assert engine.names() == []


@pytest.mark.parametrize("gpus", [Gpus(), Gpus(count=-1), Gpus(count=0, ids=("0", "GPU-1"))])
def test_a_request_for_gpus_is_kept_as_it_was_asked(engine, tmp_path, gpus):
    """This machine has no GPU, so the request is checked before the start; a wrong spelling would fail every start."""
    row, pool = engine.start()
    assert row, pool.last_error
    image = engine.runtime.find_image(SPEC["image"])
    plan = replace(
        lifecycle.plan_of(row, make_spec(ports=[]), "none", image), name=f"bh-gpus-{row.pk}", gpus=gpus, address=None
    )
    engine.runtime.create(plan)
    api = engine.runtime._api()
    body = api.create_container_config(**request.arguments(api, plan))["HostConfig"]
    found = api.inspect_container(plan.name)["HostConfig"]
    assert found["DeviceRequests"][0]["Count"] == gpus.count
    assert list(comparison._compared("HostConfig", {"DeviceRequests": body["DeviceRequests"]}, found)) == []


@pytest.mark.parametrize(
    "words",
    [
        'could not select device driver "" with capabilities: [[gpu]]',
        "failed to discover GPU vendor from CDI: no known GPU vendor found",
        "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=0",
    ],
)
def test_an_engine_without_gpus_is_told_by_the_words_of_old_ones_and_new_ones(words):
    """Docker 28 and later look for them as CDI devices."""
    answer = requests.Response()
    answer.status_code = 500
    with pytest.raises(CannotGive, match="has no GPUs") as said, translated():
        raise docker.errors.APIError("500 Server Error", answer, words)
    assert said.value.detail.endswith(words)


RESOLVER = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 53))
print("ready", flush=True)
while True:
    q, who = s.recvfrom(512)
    n = q.index(b"\\0", 12) + 5
    is_a = q[n - 4 : n - 2] == b"\\0\\1"
    answer = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4" + socket.inet_aton("203.0.113.9")
    counts = b"\\0\\1\\0\\1\\0\\0\\0\\0" if is_a else b"\\0\\1\\0\\0\\0\\0\\0\\0"
    s.sendto(q[:2] + b"\\x81\\x80" + counts + q[12:n] + (answer if is_a else b""), who)
"""
"""Says 203.0.113.9 of every name."""


@contextlib.contextmanager
def resolver(address, *, prefix=()):
    running = subprocess.Popen([*prefix, sys.executable, "-c", RESOLVER, address], stdout=subprocess.PIPE)
    try:
        assert running.stdout.readline() == b"ready\n"
        yield
    finally:
        running.kill()
        running.wait(10)


@pytest.fixture
def elsewhere():
    """A resolver on a machine of its own, 198.51.100.2."""
    name, outside, inside = f"bhdns{os.getpid()}", f"o{os.getpid()}", f"i{os.getpid()}"

    def ip(*arguments):
        subprocess.run(["ip", *arguments], check=True, timeout=10)

    ip("netns", "add", name)
    try:
        ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
        ip("addr", "add", "198.51.100.1/30", "dev", outside)
        ip("link", "set", outside, "up")
        ip("-n", name, "addr", "add", "198.51.100.2/30", "dev", inside)
        ip("-n", name, "link", "set", inside, "up")
        ip("-n", name, "route", "add", "default", "via", "198.51.100.1")
        with resolver("198.51.100.2", prefix=("ip", "netns", "exec", name)):
            yield "198.51.100.2"
    finally:
        ip("netns", "delete", name)


def test_the_container_asks_the_resolver_that_was_named_and_the_node_does_not_answer(engine, elsewhere):
    """Names are resolved there; a resolver on the node itself stays unreachable (P11)."""
    row, pool = engine.start(dns=[elsewhere])
    assert row, pool.last_error
    assert "203.0.113.9" in engine.run(row, "nslookup what.ever.test")
    assert engine.inspect(row)["HostConfig"]["Dns"] == [elsewhere]

    gateway = str(ipaddress.ip_network(host.ensure_network().subnet)[1])
    with resolver(gateway):
        row, pool = engine.start(dns=[gateway], extra_hosts={"node": gateway})
        assert row, pool.last_error
        assert "203.0.113.9" not in engine.run(row, "timeout 2 nslookup what.ever.test 2>&1; true")
        assert "203.0.113.9" not in engine.run(row, "timeout 2 nslookup what.ever.test node 2>&1; true")


def test_settings_that_mean_nothing_are_said_at_start(settings):
    """An unknown limit, a file that is no device, and a disk."""
    settings.BOILERHOUSE_MAX_ULIMITS = {"nofile": 100, "files": 1, "cpu": -2}
    settings.BOILERHOUSE_ALLOWED_DEVICES = ["gpus", "/dev/fuse", "nvidia0"]
    assert [one.id for one in checks.workload_permits()] == ["boilerhouse.E020", "boilerhouse.E020", "boilerhouse.E021"]
    settings.BOILERHOUSE_MAX_ULIMITS = {}
    disks = [f"/dev/{name}" for name in os.listdir("/sys/block") if os.path.exists(f"/dev/{name}")]
    settings.BOILERHOUSE_ALLOWED_DEVICES = disks[:1]
    assert [one.id for one in checks.workload_permits()] == ["boilerhouse.W020"] * len(disks[:1])

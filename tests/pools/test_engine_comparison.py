"""The created container is compared with the request, on a real engine behind a socket that drops fields."""

from __future__ import annotations

import copy

import pytest

from pools import dry_runs, host, images
from pools.errors import EngineFailure
from pools.models import Container, Pool
from pools.runtime import seccomp
from pools.runtime.docker import comparison
from pools.states import ContainerState, PoolState, Trouble
from tests.docker_command import docker
from tests.make import make_spec
from tests.real_engine import SLEEP

pytestmark = pytest.mark.any_database
FULL = {
    "resources": {"shm_mb": 16, "pids_limit": 64, "memory_mb": 128},
    "tmpfs": [{"path": "/scratch", "size_mb": 8, "exec": False}],
    "ulimits": [{"name": "nofile", "soft": 1000, "hard": 2000}],
    "extra_hosts": {"db.internal": "192.0.2.7"},
    "dns": ["192.0.2.53"],
    "labels": {"org.example.team": "blue"},
    "environment": {"GREETING": "not for an error"},
    "entrypoint": [],
    "working_dir": "/tmp",
    "stop_signal": "SIGQUIT",
    "user": {"uid": None, "gid": 0, "groups": [44], "name": None, "home": None},
    "health_check": {"command": ["true"]},
}


def drop(*path):
    def change(body):
        for name in path[:-1]:
            body = body[name]
        del body[path[-1]]

    return change


def put(value, *path):
    def change(body):
        for name in path[:-1]:
            body = body[name]
        body[path[-1]] = value

    return change


def without_options(body):
    body["HostConfig"]["Tmpfs"] = dict.fromkeys(body["HostConfig"]["Tmpfs"], "rw,size=8m,exec")


def writable(body):
    for one in body["HostConfig"]["Mounts"]:
        one["ReadOnly"] = False


DROPPED = [
    {
        "resources.pidsLimit": drop("HostConfig", "PidsLimit"),
        "resources.memoryMb": lambda body: body["HostConfig"].update(Memory=0, MemorySwap=0),
        "resources.cpus": drop("HostConfig", "NanoCpus"),
        "resources.shmMb": drop("HostConfig", "ShmSize"),
        "security.readOnlyRootFilesystem": put(False, "HostConfig", "ReadonlyRootfs"),
        "HostConfig.CapDrop": drop("HostConfig", "CapDrop"),
        "HostConfig.SecurityOpt is ['seccomp": put(["seccomp=unconfined"], "HostConfig", "SecurityOpt"),
        "HostConfig.CapAdd": put(["NET_ADMIN"], "HostConfig", "CapAdd"),
        "HostConfig.IpcMode": put("shareable", "HostConfig", "IpcMode"),
        "HostConfig.MaskedPaths is empty": put([], "HostConfig", "MaskedPaths"),
        "HostConfig.ReadonlyPaths is empty": put([], "HostConfig", "ReadonlyPaths"),
        "the container's user": drop("User"),
        "user.groups (HostConfig.GroupAdd)": drop("HostConfig", "GroupAdd"),
        "ulimits (HostConfig.Ulimits)": drop("HostConfig", "Ulimits"),
        "its address in the network": drop("NetworkingConfig"),
    },
    {
        "HostConfig.SecurityOpt is nothing": drop("HostConfig", "SecurityOpt"),
        "tmpfs (HostConfig.Tmpfs)": without_options,
        "extraHosts": drop("HostConfig", "ExtraHosts"),
        "dns (HostConfig.Dns)": drop("HostConfig", "Dns"),
        "labels (Config.Labels) differs": drop("Labels", "org.example.team"),
        "environment (Config.Env) differs": put([], "Env"),
        "volumes (Mounts)": writable,
        "security.networkMode": put("bridge", "HostConfig", "NetworkMode"),
        "entrypoint (Config.Entrypoint)": put(["env", "sleep", "1000"], "Entrypoint"),
        "workingDir (Config.WorkingDir)": drop("WorkingDir"),
        "init (HostConfig.Init)": put(True, "HostConfig", "Init"),
        "stopSignal (Config.StopSignal)": drop("StopSignal"),
        "healthCheck (Config.Healthcheck)": drop("Healthcheck"),
    },
    {"HostConfig.Privileged": put(True, "HostConfig", "Privileged")},
    {"HostConfig.PidMode": put("host", "HostConfig", "PidMode")},
]
"""What is dropped, or added, in one request → the words for each."""


@pytest.mark.parametrize("dropped", DROPPED, ids=lambda one: next(iter(one)))
def test_whatever_an_engine_drops_fails_the_start_and_is_named(engine, dropped):
    """Each limit and hardening option that the engine drops is named, the start fails, and nothing is left."""
    row, pool = engine.start(**FULL)
    assert row, pool.last_error

    def change(body):
        for one in dropped.values():
            one(body)

    engine.filter.change = change
    row, pool = engine.start(**FULL)
    assert row is None
    shown = Pool.objects.with_counts().get(pk=pool.pk).status()
    assert (pool.trouble, shown.state) == (Trouble.START_FAILED, PoolState.ERROR)
    assert pool.last_error.startswith("The engine created a container that differs from the request: ")
    assert [words for words in dropped if words not in pool.last_error] == []
    assert "not for an error" not in pool.last_error
    assert len(engine.names()) == 1, "what was not as it was asked is gone"
    assert Container.objects.exclude(state=ContainerState.IDLE).count() == 0


EVERYTHING = {
    **FULL,
    "devices": [{"path": "/dev/zero", "permissions": "rw"}],
    "ports": [{"name": "http", "container_port": 8080, "publish": True}],
}


def test_every_key_of_a_request_is_compared(engine, settings, monkeypatch, tmp_path):
    """Each field that is missing or different in the engine's report; also fields added later."""
    settings.BOILERHOUSE_ALLOWED_DEVICES = ["/dev/zero"]
    (tmp_path / "swaps").write_text("Filename Type\n/swapfile file\n")
    monkeypatch.setattr(comparison, "SWAPS", tmp_path / "swaps")
    bodies = []
    engine.filter.change = lambda body: bodies.append(copy.deepcopy(body))
    row, pool = engine.start(**EVERYTHING)
    assert row, pool.last_error
    (body,), found = bodies, engine.inspect(row)
    compared = 0
    for part, keys in (("Config", body), ("HostConfig", body["HostConfig"])):
        for key, wanted in keys.items():
            if not wanted or key in ("HostConfig", "NetworkingConfig", "Mounts"):
                continue
            for other in (None, *others(wanted)):
                told = copy.deepcopy(found)
                told[part][key] = other
                said = comparison.differences(body, told)
                assert any(key in one for one in said), (part, key, other)
                compared += 1
    assert compared > 40
    for mount in found["Mounts"]:
        told = {**found, "Mounts": [one for one in found["Mounts"] if one != mount]}
        assert mount["Destination"] in str(comparison.differences(body, told))


def others(value):
    """Values that are almost this one."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value - 1, 0]
    if isinstance(value, str):
        return [f"{value}x", ""]
    if isinstance(value, dict):
        first = next(iter(value))
        return [{name: one for name, one in value.items() if name != first}]
    return [value[1:]]


def test_the_editors_try_says_it_too(engine):
    """A dry run does not bypass it."""
    spec = make_spec(command=SLEEP, ports=[])
    assert dry_runs.run(spec).is_healthy
    engine.filter.change = drop("HostConfig", "PidsLimit")
    tried = dry_runs.run(spec)
    assert not tried.is_healthy
    assert "resources.pidsLimit" in tried.message
    assert not [one for one in dry_runs._root().iterdir() if one.is_dir()]


def test_a_machine_without_swap_gives_none_whatever_its_kernel_can_limit(engine, tmp_path, monkeypatch):
    """A dropped swap limit counts only on a host with swap."""
    engine.filter.change = put(-1, "HostConfig", "MemorySwap")
    swaps = tmp_path / "swaps"
    monkeypatch.setattr(comparison, "SWAPS", swaps)
    swaps.write_text("Filename Type Size Used Priority\n/swapfile file 1 0 -2\n")
    row, pool = engine.start(**FULL)
    assert row is None
    assert "memory without swap" in pool.last_error
    swaps.write_text("Filename Type Size Used Priority\n")
    assert engine.start(**FULL)[0]
    swaps.unlink()
    assert engine.start(**FULL)[0]


def without_profile(body):
    body["HostConfig"]["SecurityOpt"].append("seccomp=unconfined")


def silently(found):
    found["HostConfig"]["SecurityOpt"] = ["no-new-privileges=true", seccomp.option()]


def with_capabilities(body):
    body["HostConfig"]["CapDrop"] = []
    body["User"] = "0:0"


def as_if_dropped(found):
    found["HostConfig"]["CapDrop"] = ["ALL"]
    found["Config"]["User"] = "200000:200000"


def test_an_engine_that_does_not_say_what_it_dropped_is_seen_through(engine):
    """The kernel's status decides on profile and capabilities, for example where it has no seccomp."""
    engine.filter.change, engine.filter.pretend = without_profile, silently
    row, pool = engine.start(**FULL)
    assert row is None
    assert "Seccomp of its first process is 0 instead of 2" in pool.last_error
    engine.filter.change, engine.filter.pretend = with_capabilities, as_if_dropped
    row, pool = engine.start(security={"run_as_user": 200000})
    assert row is None
    assert "CapBnd of its first process is" in pool.last_error
    assert engine.names() == []
    engine.filter.change = engine.filter.pretend = None
    assert engine.start(**FULL)[0]


def other_spelling(found):
    """As an engine may that normalises addresses."""
    host = found["HostConfig"]
    host["Dns"] = ["2001:db8::53"]
    host["ExtraHosts"] = ["v6.internal:[2001:db8::7]", "db.internal=192.0.2.7"]


def test_the_same_said_in_other_words_is_no_difference(engine):
    """An engine may normalise addresses; a different address is still a difference."""
    spec = {"dns": ["2001:DB8:0::53"], "extra_hosts": {"db.internal": "192.0.2.7", "v6.internal": "2001:0DB8::7"}}
    engine.filter.pretend = other_spelling
    row, pool = engine.start(**spec)
    assert row, pool.last_error
    engine.filter.pretend = lambda found: (other_spelling(found), found["HostConfig"].update(Dns=["2001:db8::54"]))
    row, pool = engine.start(**spec)
    assert row is None
    assert "dns (HostConfig.Dns) is ['2001:db8::54'] instead of" in pool.last_error


@pytest.fixture
def checked_image():
    """An image with a HEALTHCHECK."""
    images.ensure_example()
    change = "HEALTHCHECK --interval=7s --timeout=6s --start-period=5m --retries=9 CMD false"
    name = docker("create", images.EXAMPLE_IMAGE).strip()
    made = docker("commit", "--change", change, name).strip()
    docker("rm", name)
    yield made
    docker("rmi", "-f", made)


def test_a_check_beside_the_images_own_is_as_it_was_asked(checked_image, engine):
    """The engine takes missing fields from the image's check; a start period of 0 is sent, so it stays 0."""
    check = {"command": ["true"], "start_period_ms": 0, "interval_ms": 2000, "timeout_ms": 1000, "retries": 2}
    row, pool = engine.start(image=checked_image, health_check=check)
    assert row, pool.last_error
    found = engine.inspect(row)["Config"]["Healthcheck"]
    assert found["Test"] == ["CMD", "true"]
    assert (found["Interval"], found["Timeout"], found["Retries"]) == (2_000_000_000, 1_000_000_000, 2)
    assert found["StartPeriod"] == 1_000_000
    row, pool = engine.start(image=checked_image, is_health_check_off=True)
    assert row, pool.last_error
    assert engine.inspect(row)["Config"]["Healthcheck"]["Test"] == ["NONE"]


def test_looking_for_a_directory_says_why_no_image_will_do(engine, tmp_path):
    """An engine that creates no containers is not mistaken for one without images."""
    engine.filter.change = put(1, "HostConfig", "Memory")
    with pytest.raises(EngineFailure, match="emory limit"):
        engine.runtime.sees(str(tmp_path), host.labels())
    engine.filter.change = None
    assert engine.runtime.sees(str(tmp_path), host.labels())

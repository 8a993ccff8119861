"""What the engine made is compared with what it was asked, on the real engine behind a socket that drops things."""

from __future__ import annotations

from pools import trials
from pools.models import Container, Pool
from pools.runtime import asked
from pools.states import ContainerState, PoolState, Trouble
from tests.make import make_spec
from tests.pools.engine import SLEEP, Engine, engine  # noqa: F401

FULL = {
    "resources": {"shm_mb": 16, "pids_limit": 64, "memory_mb": 128},
    "tmpfs": [{"path": "/scratch", "size_mb": 8, "exec": False}],
    "ulimits": [{"name": "nofile", "soft": 1000, "hard": 2000}],
    "extra_hosts": {"db.internal": "192.0.2.7"},
    "dns": ["192.0.2.53"],
    "labels": {"org.example.team": "blue"},
    "environment": {"GREETING": "not for an error"},
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


DROPPED = {
    "resources.pidsLimit": drop("HostConfig", "PidsLimit"),
    "resources.memoryMb": lambda body: body["HostConfig"].update(Memory=0, MemorySwap=0),
    "resources.cpus": drop("HostConfig", "NanoCpus"),
    "resources.shmMb": drop("HostConfig", "ShmSize"),
    "security.readOnlyRootFilesystem": put(False, "HostConfig", "ReadonlyRootfs"),
    "HostConfig.CapDrop": drop("HostConfig", "CapDrop"),
    "HostConfig.SecurityOpt": put(["seccomp=unconfined"], "HostConfig", "SecurityOpt"),
    "HostConfig.SecurityOpt is nothing": drop("HostConfig", "SecurityOpt"),
    "HostConfig.CapAdd": put(["NET_ADMIN"], "HostConfig", "CapAdd"),
    "HostConfig.Privileged": put(True, "HostConfig", "Privileged"),
    "HostConfig.PidMode": put("host", "HostConfig", "PidMode"),
    "HostConfig.IpcMode": put("shareable", "HostConfig", "IpcMode"),
    "the container's user": drop("User"),
    "ulimits (HostConfig.Ulimits)": drop("HostConfig", "Ulimits"),
    "tmpfs (HostConfig.Tmpfs)": without_options,
    "extraHosts": drop("HostConfig", "ExtraHosts"),
    "dns (HostConfig.Dns)": drop("HostConfig", "Dns"),
    "labels (Config.Labels) is not": drop("Labels", "org.example.team"),
    "environment (Config.Env) is not": put([], "Env"),
    "volumes (Mounts)": writable,
    "security.networkMode": put("bridge", "HostConfig", "NetworkMode"),
    "its address in the network": drop("NetworkingConfig"),
}


def test_whatever_an_engine_drops_fails_the_start_and_is_named(engine):  # noqa: F811
    """B13: each limit and each hardening that the engine leaves out is a start that fails, in words, with nothing left."""
    row, pool = engine.start(**FULL)
    assert row, pool.last_error
    said = {}
    for name, change in DROPPED.items():
        engine.filter.change = change
        row, pool = engine.start(**FULL)
        assert row is None, name
        shown = Pool.objects.with_counts().get(pk=pool.pk).status()
        assert (pool.trouble, shown.state) == (Trouble.START_FAILED, PoolState.ERROR)
        assert "not for an error" not in pool.last_error
        said[name] = pool.last_error
    assert {name: text for name, text in said.items() if name not in text} == {}
    assert all(text.startswith("The engine made another container than it was asked for: ") for text in said.values())
    engine.filter.change = lambda body: None
    assert len(engine.names()) == 1, "what was not as it was asked is gone"
    assert Container.objects.exclude(state=ContainerState.IDLE).count() == 0


def test_the_editors_try_says_it_too(engine):  # noqa: F811
    """B13: a try is no way around it."""
    spec = make_spec(command=SLEEP, ports=[])
    assert trials.run(spec).is_healthy
    engine.filter.change = drop("HostConfig", "PidsLimit")
    tried = trials.run(spec)
    assert not tried.is_healthy
    assert "resources.pidsLimit" in tried.said
    assert not [one for one in trials._root().iterdir() if one.is_dir()]


def test_a_machine_without_swap_gives_none_whatever_its_kernel_can_limit(engine, tmp_path, monkeypatch):  # noqa: F811
    """B13: a dropped limit of swap counts where there is swap."""
    engine.filter.change = put(-1, "HostConfig", "MemorySwap")
    swaps = tmp_path / "swaps"
    monkeypatch.setattr(asked, "SWAPS", swaps)
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
    found["HostConfig"]["SecurityOpt"] = ["no-new-privileges:true"]


def with_capabilities(body):
    body["HostConfig"]["CapDrop"] = []
    body["User"] = "0:0"


def as_if_dropped(found):
    found["HostConfig"]["CapDrop"] = ["ALL"]
    found["Config"]["User"] = "200000:200000"


def test_an_engine_that_does_not_say_what_it_dropped_is_seen_through(engine):  # noqa: F811
    """B13: the kernel has the last word on profile and capabilities, as where it knows no seccomp."""
    engine.filter.change, engine.filter.pretend = without_profile, silently
    row, pool = engine.start(**FULL)
    assert row is None
    assert "Seccomp of its first process is 0 instead of 2" in pool.last_error
    engine.filter.change, engine.filter.pretend = with_capabilities, as_if_dropped
    row, pool = engine.start(security={"run_as_user": 200000})
    assert row is None
    assert "CapBnd of its first process is" in pool.last_error
    assert engine.names() == []
    engine.filter.change, engine.filter.pretend = (lambda body: None), None
    assert engine.start(**FULL)[0]

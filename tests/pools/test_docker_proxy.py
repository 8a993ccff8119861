"""The proxy in front of Docker's socket: attacked with raw bytes, and used by the product's own calls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from boilerhouse.core.deployment import deployment_id
from pools import host, images, volumes
from pools.errors import EngineFailure
from pools.runtime.base import ContainerPlan, Mount
from pools.runtime.docker import DockerRuntime, request
from tests import docker_proxy
from tests.docker_proxy import Sockets, say
from tests.lan import ipv6_forwarding_kept

pytestmark = [pytest.mark.any_database, pytest.mark.slow]

heads, calls, bodies, refusing = map(docker_proxy.module, ("heads", "calls", "bodies", "refusing"))
Refused = refusing.Refused
IMAGE = images.EXAMPLE_IMAGE


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def there_is(name: str) -> bool:
    return docker("ps", "-aq", "--filter", f"name=^/{name}$") != ""


@pytest.fixture
def sockets(tmp_path, data_dir) -> Iterator[Sockets]:
    with docker_proxy.running(tmp_path / "sockets", data_dir) as found:
        yield found


# Heads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1.41/containers/create HTTP/1.1",
        b"GET /v1.41/containers/../images/json HTTP/1.1",
        b"GET /v1.41/containers/%2e%2e/json HTTP/1.1",
        b"GET /v1.41//info HTTP/1.1",
        b"GET /info HTTP/1.1",
        b"POST /version HTTP/1.1",
        b"GET /v2.0/info HTTP/1.1",
        b"GET /v1.41/info HTTP/1.0",
        b"GET /v1.41/info HTTP/1.1\r\n folded: x",
        b"GET /v1.41/info HTTP/1.1\r\nHost : x",
        b"GET /v1.41/info HTTP/1.1\r\n: x",
        b"GET /v1.41/info HTTP/1.1\r\nHost",
        b"GET /v1.41/info HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked",
        b"GET /v1.41/info HTTP/1.1\r\nTransfer-Encoding: chunked",
        b"GET /v1.41/info HTTP/1.1\r\nTransfer-Encoding:\x0bchunked",
        b"GET /v1.41/info HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4",
        b"GET /v1.41/info HTTP/1.1\r\nContent-Length: 0\r\ncontent-length: 0",
        b"GET /v1.41/info HTTP/1.1\r\nContent-Length: +3",
        b"GET /v1.41/info HTTP/1.1\r\nContent-Length: 0x3",
        b"GET /v1.41/info HTTP/1.1\r\nContent-Length: 3",
        b"GET  /v1.41/info HTTP/1.1",
        b"GET http://docker/v1.41/info HTTP/1.1",
        b"GET /v1.41/info?a=1 HTTP/1.1",
        b"GET /v1.41/info#x HTTP/1.1",
        b"\r\nGET /v1.41/info HTTP/1.1",
        b"GET /v1.41/info HTTP/1.1\nHost: x",
        b"GET /v1.41/info HTTP/1.1\rHost: x",
        b"GET /v1.41/info HTTP/1.1\r\nX: a\x00b",
        b"GET /v1.41/info HTTP/1.1\r\nX: a\x7fb",
        b"GET /v1.41/containers/json HTTP/1.1",
        b"GET /v1.41/events HTTP/1.1",
        b'GET /v1.41/containers/json?filters={"label":["a"]} HTTP/1.1',
        b'GET /v1.41/containers/json?filters={"label":["boilerhouse.x"],"label":[]} HTTP/1.1',
        b"GET /v1.41/containers/postgres/json HTTP/1.1",
        b"GET /v1.41/containers/0123456789ab/json HTTP/1.1",
        b"GET /v1.41/networks/bridge HTTP/1.1",
        b"POST /v1.41/containers/postgres/exec HTTP/1.1",
        b"POST /v1.41/containers/bh-accounts-0a/exec HTTP/1.1",
        b"\xff",
    ],
)
def test_a_head_that_could_be_read_in_two_ways_or_asks_for_another_thing_is_refused(head):
    """Bare LF, CR, NUL, odd lengths and encodings, folded and doubled headers; and foreign containers."""
    with pytest.raises(Refused):
        calls.of(heads.parse(head + b"\r\n\r\n"), calls.of_sockets(bodies.Allowed())["web"])


def test_the_engine_gets_a_head_that_was_written_anew():
    """Additional data of a client is dropped, and the engine reads no second request."""
    head = heads.parse(
        b"POST /v1.41/images/create?fromImage=a%2Fb&tag=1 HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n"
        b"X-Registry-Auth: e30=\r\nExpect: 100-continue\r\nUpgrade: h2c\r\n\r\n"
    )
    assert heads.written(head, 0, "application/json", upgrade=False) == (
        b"POST /v1.41/images/create?fromImage=a%2Fb&tag=1 HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\n"
        b"x-registry-auth: e30=\r\nConnection: close\r\n\r\n"
    )


SEPARATORS = [
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\r\r",
    b"\0",
    b" ",
    b"\t",
    b"\x0b",
    b"\x85",
    b"%0d%0a",
    b":",
    b"\xe2\x80\xa8",
]
PIECES = [
    b"GET /v1.41/info HTTP/1.1", b"POST /v1.41/containers/create?name=bh-x HTTP/1.1", b"Host: x", b"Content-Length: 0",
    b"Content-Length: 9", b"Transfer-Encoding: chunked", b"Connection: keep-alive", b"X-Registry-Auth: e30=", b"0", b"",
]  # fmt: skip


@given(st.lists(st.sampled_from([*PIECES, *SEPARATORS]), max_size=14), st.sampled_from(["web", "worker"]))
@hypothesis_settings(max_examples=500, deadline=None)
def test_whatever_is_let_through_is_one_request_of_those_allowed(pieces, socket):
    """By construction, not by a list of known attacks."""
    try:
        head = heads.parse(b"GET /v1.41/info HTTP/1.1\r\nHost: a\r\n" + b"".join(pieces) + b"\r\n\r\n")
        calls.of(head, calls.of_sockets(bodies.Allowed())[socket])
    except Refused:
        return
    told = heads.written(head, 0, "application/json", upgrade=False)
    lines = told.split(b"\n")
    assert all(line.endswith(b"\r") and b"\r" not in line[:-1] for line in lines[:-1])
    assert [at for at, line in enumerate(lines) if line == b"\r"] == [len(lines) - 2]
    assert lines[0] == b"GET /v1.41/info HTTP/1.1\r"
    assert b"Connection: close\r" in lines


@pytest.mark.parametrize("target", ["/version", "/v1.41/info", "/v1.44/info", "/v1.51/info"])
def test_each_version_and_the_question_for_it_are_let_through(target):
    """The version is negotiated through the proxy too."""
    for found in calls.of_sockets(bodies.Allowed()).values():
        assert calls.of(heads.parse(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()), found)


@pytest.mark.parametrize(
    "request_line",
    ["POST /v1.41/auth", "GET /v1.41/distribution/127.0.0.1:5000/a/b:1/json", "POST /v1.41/images/create"],
)
def test_registries_are_asked_through_the_workers_socket_alone(request_line):
    """Logins and tags, like pulls."""
    found = calls.of_sockets(bodies.Allowed())
    head = heads.parse(f"{request_line} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert calls.of(head, found["worker"])
    with pytest.raises(Refused):
        calls.of(head, found["web"])


@pytest.mark.parametrize(
    "query", ["", "?t=postgres:15", "?t=boilerhouse/a/../b:1", "?t=boilerhouse/x:1&networkmode=host"]
)
def test_no_image_of_somebody_else_is_built_and_none_in_the_hosts_network(query):
    head = heads.parse(f"POST /v1.41/build{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    with pytest.raises(Refused):
        calls.of(head, calls.of_sockets(bodies.Allowed())["worker"])


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("name", "kinds"), [("bh-accounts-0a1b", {"worker"}), ("bh-0198b1d4", set()), ("0a1b2c3d4e5f", set())]
)
def test_no_file_of_a_container_is_read_that_ran(method, name, kinds):
    """An image's passwd is read from a container that is never started."""
    head = heads.parse(f"{method} /v1.41/containers/{name}/archive?path=%2Fetc%2Fpasswd HTTP/1.1\r\n\r\n".encode())

    def is_let_through(found) -> bool:
        try:
            return bool(calls.of(head, found))
        except Refused:
            return False

    assert {kind for kind, found in calls.of_sockets(bodies.Allowed()).items() if is_let_through(found)} == kinds


# The real engine ---------------------------------------------------------------------------------------


def creating(name: str, line: bytes = b"\r\n") -> bytes:
    """A complete request for a container with the host's files."""
    body = json.dumps(
        {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"Privileged": True, "Binds": ["/:/host"]}}
    ).encode()
    parts = [
        f"POST /v1.41/containers/create?name={name} HTTP/1.1".encode(), b"Host: docker",
        b"Content-Type: application/json", b"Content-Length: %d" % len(body), b"", body,
    ]  # fmt: skip
    return line.join(parts)


def smuggled(name: str) -> list[list[bytes]]:
    """Allowed requests that contain, or are followed by, one that is not."""
    second, bare = creating(name), creating(name, b"\n")
    look = b"GET /version HTTP/1.1\r\nHost: a\r\n"
    start = b"POST /v1.41/exec/" + b"0" * 64 + b"/start HTTP/1.1\r\nHost: a\r\n"
    upgraded = (
        start + b"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(second), second)
    return [
        [second],
        [look + b"X-A: b\n\n" + second + b"\r\n\r\n"],
        [look + b"X-A: b\n\n" + bare + b"\r\n\r\n"],
        [look + b"X-A: b\r\r" + second],
        [look + b"X-A: b\0\r\n\r\n" + second],
        [look + b"\r\n" + second],
        [look + b"\r\n", second],
        [look + b"Connection: keep-alive\r\n\r\n", second],
        [look + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(second) + second],
        [look + b"Content-Length: %d\r\n\r\n" % len(second) + second],
        [look + b"Content-Length: -1\r\n\r\n" + second],
        [look + b"Transfer-Encoding: chunked\r\n\r\n" + chunked],
        [look + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + second],
        [look + b"Transfer-Encoding: \x0bchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + second],
        [look + b"Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + second],
        [look + b" Content-Length: %d\r\n\r\n" % len(second) + second],
        [upgraded + second],
        [upgraded, second],
        [upgraded.replace(b"{}", b'{"Detach":true}').replace(b"Length: 2", b"Length: 15"), second],
        [start.replace(b"/start", b"/resize?h=1&w=1") + b"Content-Length: 0\r\n\r\n", second],
        [b"GET /v1.41/containers/bh-none/logs?follow=1&stdout=1 HTTP/1.1\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n", second],
    ]  # fmt: skip


@pytest.fixture(scope="module")
def lasting(tmp_path_factory) -> Iterator[Sockets]:
    images.ensure_example()
    directory = tmp_path_factory.mktemp("proxy")
    with docker_proxy.running(directory, directory) as found:
        yield found


@pytest.mark.parametrize("number", range(len(smuggled(""))))
def test_nothing_is_smuggled_to_the_engine(lasting, number):
    """A bare LF in a header smuggled a second request past the filter, which created a privileged container."""
    sockets = lasting
    name = f"bh-smuggled-{number}"
    parts = smuggled(name)[number]
    try:
        for path in (sockets.web, sockets.worker):
            answer = say(path, *parts)
            assert not there_is(name), answer
            assert b" 201 " not in answer
            assert answer.count(b"HTTP/1.1 ") <= 1, "the engine answered two requests"
    finally:
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)


@pytest.fixture
def plan(data_dir) -> ContainerPlan:
    images.ensure_example()
    source = data_dir / "containers" / "x"
    source.mkdir(parents=True)
    return ContainerPlan(
        name="bh-proxied", image=DockerRuntime(f"unix://{docker_proxy.ENGINE}").find_image(IMAGE).id,
        command=("sh", "-c", "exec sleep 1000"), environment={"A": "b"}, labels=host.labels(), uid=31234,
        mounts=(Mount(str(source), "/state", read_only=False),), network="none", address=None, dns=(), ports=(),
        exposed=((80, "tcp"),), read_only_root=True, cpus=0.5, memory_mb=64, pids_limit=32, shm_mb=8, tmpfs=(),
        placeholder=str(volumes.placeholder_dir()), runtime=None, probe=None, stop_timeout_ms=0,
    )  # fmt: skip


@pytest.fixture
def proxied(sockets, plan) -> Iterator[tuple[DockerRuntime, DockerRuntime, ContainerPlan]]:
    web, worker = (DockerRuntime(sockets.url(name)) for name in ("web", "worker"))
    worker.create(plan)
    worker.start(plan.name)
    yield web, worker, plan
    worker.remove(plan.name)


def test_what_the_product_asks_for_goes_through(proxied, data_dir):
    """Containers are created as without the proxy, and commands, terminals and logs are streamed through it."""
    web, worker, plan = proxied
    assert worker.inspect_made(plan).is_running
    assert web.exec(plan.name, ("sh", "-c", "cat; echo late >&2"), 10_000, b"fed\n").stdout == b"fed\n"
    assert web.exec(plan.name, ("id", "-u"), 10_000).stdout == b"31234\n"
    assert [one.handle.name for one in web.list(host.labels())] == [plan.name]
    shell = web.terminal(plan.name, ("sh",), 80, 24)
    shell.write(b"echo $((40+2)); exit 3\n")
    assert b"42" in b"".join(shell)
    assert shell.exit_code() == 3
    assert worker.sees(plan.mounts[0].source, host.labels()) is True
    worker.pause(plan.name)
    worker.unpause(plan.name)
    followed = web.follow_logs(plan.name, 1)
    followed.close()
    with pytest.raises(EngineFailure, match="proxy denied this call"):
        web.stop(plan.name, 0)
    with pytest.raises(EngineFailure, match="proxy denied this call"):
        worker.create(replace(plan, name="bh-second", mounts=(Mount("/etc", "/host", read_only=True),)))


def test_the_network_is_made_and_removed_through_the_workers_socket(sockets, data_dir):
    """With our name, bridge and label."""
    worker = DockerRuntime(sockets.url("worker"))
    subnets = iter(["10.251.0.0/24", "10.252.0.0/24"])
    made = worker.ensure_network(host.network_name(), host.bridge_name(), subnets, host.labels())
    assert made.bridge == f"bh{deployment_id()}"
    worker.remove_network(made.name)


def test_containers_get_ipv6_through_the_workers_socket(sockets, plan):
    """The network is created through it, and the container has the requested address."""
    worker = DockerRuntime(sockets.url("worker"))
    with ipv6_forwarding_kept():
        subnets = iter(["10.251.0.0/24", "10.252.0.0/24"])
        made = worker.ensure_network(host.network_name(), host.bridge_name(), subnets, host.labels(), "fd4b:5:7::/64")
        try:
            address = made.subnet.replace(".0/24", ".7")
            whole = replace(plan, network=made.name, address=address, address6=made.address6(address))
            worker.create(whole)
            worker.start(whole.name)
            assert worker.inspect_made(whole).is_running
            assert b"fd4b:5:7::7/64" in worker.exec(whole.name, ("ip", "-6", "addr"), 10_000).stdout
        finally:
            worker.remove(plan.name)
            worker.remove_network(made.name)


def test_an_image_is_built_through_the_workers_socket(sockets, data_dir):
    """The build context is passed on by its length."""
    worker = DockerRuntime(sockets.url("worker"))
    context = images.pack(images.EXAMPLE_CONTEXT, {"busybox": images.BUSYBOX})
    assert list(worker.build(context, "boilerhouse/proxied:1"))
    docker("rmi", "boilerhouse/proxied:1")


# Bodies ------------------------------------------------------------------------------------------------


def body_of(plan: ContainerPlan) -> dict:
    api = DockerRuntime(f"unix://{docker_proxy.ENGINE}")._api()
    return dict(api.create_container_config(**request.arguments(api, plan)))


HOSTILE = {
    "privileged": {"Privileged": True}, "capabilities": {"CapAdd": ["SYS_ADMIN"]}, "kept": {"CapDrop": []},
    "pids": {"PidMode": "host"}, "ipc": {"IpcMode": "host"}, "uts": {"UTSMode": "host"},
    "users": {"UsernsMode": "host"}, "cgroups": {"CgroupnsMode": "host"}, "parent": {"CgroupParent": "/"},
    "binds": {"Binds": ["/:/host"]}, "volumes-from": {"VolumesFrom": ["bh-x"]}, "host-network": {"NetworkMode": "host"},
    "another's": {"NetworkMode": "container:bh-x"}, "default-network": {"NetworkMode": "bridge"},
    "no-network": {"NetworkMode": ""}, "no-profile": {"SecurityOpt": []},
    "unconfined": {"SecurityOpt": ["no-new-privileges=true", "seccomp=unconfined"]},
    "apparmor": {"SecurityOpt": ["no-new-privileges=true", "apparmor=unconfined"]},
    "label": {"SecurityOpt": ["no-new-privileges=true", "label=disable"]},
    "device": {"Devices": [{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/x", "CgroupPermissions": "rwm"}]},
    "rules": {"DeviceCgroupRules": ["a *:* rwm"]}, "gpus": {"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]},
    "sysctl": {"Sysctls": {"kernel.shmmax": "1"}}, "runtime": {"Runtime": "evil"}, "memory": {"Memory": 0},
    "processes": {"PidsLimit": -1}, "published": {"PortBindings": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "80"}]}},
    "published-everywhere": {"PortBindings": {"80/tcp": [{"HostPort": "80"}]}}, "all-ports": {"PublishAllPorts": True},
    "log": {"LogConfig": {"Type": "syslog", "Config": {"syslog-address": "tcp://127.0.0.1:1"}}},
    "unmasked": {"MaskedPaths": [""]}, "storage": {"StorageOpt": {"size": "1G"}}, "links": {"Links": ["a:b"]},
    "oom": {"OomKillDisable": True}, "restart": {"RestartPolicy": {"Name": "always"}}, "driver": {"VolumeDriver": "x"},
    "case": {"privileged": True}, "case-binds": {"bInDs": ["/:/host"]},
    "etc": {"Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/e"}]},
    "dots": {"Mounts": [{"Type": "bind", "Source": "DATA/../../etc", "Target": "/e"}]},
    "data-itself": {"Mounts": [{"Type": "bind", "Source": "DATA", "Target": "/e"}]},
    "beside": {"Mounts": [{"Type": "bind", "Source": "DATA-other/x", "Target": "/e"}]},
    "volume": {"Mounts": [{"Type": "volume", "Source": "DATA/x", "Target": "/e"}]},
    "untyped": {"Mounts": [{"Source": "DATA/x", "Target": "/e"}]},
    "propagated": {
        "Mounts": [{"Type": "bind", "Source": "DATA/x", "Target": "/e", "BindOptions": {"Propagation": "rshared"}}]
    },
    "driver-options": {
        "Mounts": [{"Type": "bind", "Source": "DATA/x", "Target": "/e", "VolumeOptions": {"DriverConfig": {"Name": "l"}}}]
    },
    "mount-case": {"Mounts": [{"Type": "bind", "Source": "DATA/x", "source": "/", "Target": "/e"}]},
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_no_container_is_made_that_has_more_than_the_product_asks_for(plan, data_dir, what):
    """One of our requests with one field more, or one less."""
    allowed = bodies.Allowed(directories=(str(data_dir),))
    body = body_of(plan)
    assert json.loads(bodies.container(plan.name, json.dumps(body).encode(), allowed))["HostConfig"]["CapDrop"]
    changed = json.loads(json.dumps(HOSTILE[what]).replace("DATA", str(data_dir)))
    body["HostConfig"] = {**body["HostConfig"], **changed}
    with pytest.raises(Refused):
        bodies.container(plan.name, json.dumps(body).encode(), allowed)


@pytest.mark.parametrize(
    "change",
    [
        {"User": "0:0"}, {"User": ""}, {"User": "root"}, {"Labels": {}}, {"Labels": {"a": "b"}}, {"HostConfig": None},
        {"Labels": {"boilerhouse.deployment": ""}}, {"Volumes": {"/x": {}}}, {"MacAddress": "02:42:ac:11:00:02"},
        {"NetworkingConfig": {"EndpointsConfig": {"bridge": {}}}}, {"hostconfig": {"Privileged": True}},
        {"HOSTCONFIG": {"Binds": ["/:/h"]}}, {"OnBuild": ["RUN x"]}, {"NetworkDisabled": True},
    ],
)  # fmt: skip
def test_no_container_is_made_of_another_kind(plan, data_dir, change):
    """Labels, names, and keys that Go matches in any case."""
    allowed = bodies.Allowed(directories=(str(data_dir),))
    with pytest.raises(Refused):
        bodies.container(plan.name, json.dumps({**body_of(plan), **change}).encode(), allowed)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b'{"Image":"a"', b'{"Labels":{},"Labels":{}}', b'{"HostConfig":{},"hostConfig":{}}',
        b'{"Memory":NaN}', b"[" * 100_000, b'{"Cmd":["a\xff"]}', b"{}{}",
    ],
)  # fmt: skip
def test_a_body_that_could_be_read_in_two_ways_is_refused(body):
    """Duplicate names, invalid numbers, invalid UTF-8."""
    with pytest.raises(Refused):
        bodies.container("bh-x", body, bodies.Allowed())


@pytest.mark.parametrize("name", ["", "x", "../bh-x", "bh-", "bh-a/b", "xbh-a"])
def test_only_names_of_ours_are_made(name):
    head = heads.Head("POST", "/v1.41/containers/create", {"name": name}, 2, {})
    (call,) = (one for one in calls.of_sockets(bodies.Allowed())["worker"] if one.path == "/containers/create")
    with pytest.raises(Refused, match="its name"):
        call.body(head, b"{}")


@pytest.mark.parametrize(
    "change",
    [
        {"Privileged": True},
        {"User": "0"},
        {"user": "0"},
        {"WorkingDir": "/x"},
        {"DetachKeys": "a"},
        {"PRIVILEGED": True},
    ],
)
def test_commands_run_as_the_containers_user(proxied, sockets, change):
    """Neither as root, nor with privileges, nor in other containers."""
    _, _, plan = proxied
    body = json.dumps({"Cmd": ["id"], "AttachStdout": True, **change}).encode()
    head = f"POST /v1.41/containers/{plan.name}/exec HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
    for path in (sockets.web, sockets.worker):
        assert b" 403 " in say(path, head.encode() + body)
    assert b" 201 " in say(
        sockets.web, head.replace(str(len(body)), "38").encode() + b'{"Cmd":["id"],"AttachStdout":true    }'
    )


def test_a_container_of_somebody_else_is_not_reached_at_all(sockets, plan):
    """Neither by its name nor by its id, through either socket."""
    name = "somebody-elses-h1"
    found = docker("run", "-d", "--rm", "--name", name, "--network", "none", IMAGE, "sh", "-c", "sleep 60")
    try:
        body = b'{"Cmd":["id"]}'
        for path in (sockets.web, sockets.worker):
            for called in (name, found, found[:12]):
                for line in (
                    f"GET /v1.41/containers/{called}/json", f"GET /v1.41/containers/{called}/logs?stdout=1",
                    f"POST /v1.41/containers/{called}/exec", f"POST /v1.41/containers/{called}/kill",
                    f"DELETE /v1.41/containers/{called}?force=1", f"POST /v1.41/containers/{called}/start",
                ):  # fmt: skip
                    length = len(body) if line.endswith("/exec") else 0
                    told = f"{line} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode() + body[:length]
                    assert b" 403 " in say(path, told), line
    finally:
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)


def as_web(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the privileges that compose gives the web process."""
    compose = yaml.safe_load((docker_proxy.DIRECTORY.parents[1] / "compose.yaml").read_text())
    rights = ",".join(f"+{one.lower()}" for one in compose["services"]["web"]["cap_add"])
    words = ["setpriv", f"--bounding-set=-all,{rights}", "--inh-caps=-all", "--no-new-privs", *command]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


def test_proc_leads_the_web_process_to_no_other_socket(tmp_path):
    """With the host's process ids, /proc/PID/root of the proxy had the engine's own socket."""
    of_proxy = ["setpriv", "--bounding-set=-all,+dac_override", "--inh-caps=-all", "--no-new-privs"]
    other = subprocess.Popen([*of_proxy, "sleep", "60"])
    try:
        with docker_proxy.running(tmp_path, tmp_path, before=of_proxy) as sockets:
            roots = [f"/proc/{other.pid}/root/", f"/proc/{sockets.pid}/root/", f"/proc/{os.getpid()}/root/"]
            assert [as_web("ls", path).returncode == 0 for path in roots] == [True, False, False]
    finally:
        other.kill()
        other.wait()


def test_the_web_process_ends_late_commands_with_the_rights_it_has(proxied):
    """Without SYS_PTRACE."""
    web, _, plan = proxied
    api = web._api()
    made = api.exec_create(plan.name, ["sh", "-c", "sleep 70 & sleep 71"])["Id"]
    stream = api.exec_start(made, socket=True)
    while not (seen := api.exec_inspect(made))["Pid"]:
        time.sleep(0.05)
    kill = f"host_processes.kill_tree({seen['Pid']}, '{seen['ContainerID']}')"
    script = f"import django; django.setup(); from pools import host_processes; print({kill})"
    done = as_web(sys.executable, "-c", script)
    stream.close()
    assert done.stdout == "True\n", done.stderr
    assert b"sleep 7" not in web.exec(plan.name, ("ps",), 10_000).stdout


def test_a_body_is_bounded(sockets):
    """Before a byte of it is read."""
    head = b"POST /v1.41/containers/bh-x/exec HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n"
    assert b"are the most" in say(sockets.web, head)
    assert b" 403 " in say(sockets.web, b"GET /version HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n")

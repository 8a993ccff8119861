"""Our seccomp profile, seen from a container of a real engine, and how containers get it."""

from __future__ import annotations

import errno
import json
import platform
import struct

import pytest

from boilerhouse.core.deployment import node_id
from pools import lifecycle, reconcile, volumes
from pools.models import Container
from pools.runtime import seccomp
from pools.runtime.base import Handle, Observed
from pools.states import ContainerState, Trouble
from tests.make import make_container, make_pool

pytestmark = [pytest.mark.any_database, pytest.mark.django_db]

REFUSED = {errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT}
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_TIPC, AF_ALG, AF_VSOCK = 1, 2, 10, 16, 17, 30, 38, 40
STREAM, RAW = 1, 3
X32 = 0x4000_0000
BASE, HEADERS = 0x400000, 64 + 56


def program(code: bytes) -> bytes:
    """An ELF file of x86-64 that runs this, and exits with the error number that the call answers."""
    code += bytes.fromhex("48f7d8 4889c7 b83c000000 0f05")  # neg rax; mov rdi, rax; exit
    size = HEADERS + len(code)
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, BASE + HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return head + struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 0x1000) + code


def call(number: int, *arguments: int) -> bytes:
    """One call of the kernel, as 64-bit programs make it."""
    loads = ("48bf", "48be", "48ba", "49ba")  # rdi, rsi, rdx, r10
    code = b"".join(bytes.fromhex(at) + struct.pack("<Q", one) for at, one in zip(loads, arguments, strict=False))
    return program(code + b"\x48\xb8" + struct.pack("<Q", number) + b"\x0f\x05")


def old_socket(domain: int) -> bytes:
    """socket() by the 32-bit socketcall, whose arguments no filter sees."""
    code = b"\xb8" + struct.pack("<I", 102) + b"\xbb" + struct.pack("<I", 1) + b"\xb9"
    after = len(code) + 4 + 2 + 3 + 13  # the address, int 0x80, movsxd, and what ends the program
    code += struct.pack("<I", BASE + HEADERS + after) + bytes.fromhex("cd80 4863c0")
    return program(code) + struct.pack("<III", domain, STREAM, 0)


CLOSED = {
    "vsock": call(41, AF_VSOCK, STREAM, 0), "vsock-datagram": call(41, AF_VSOCK, 2, 0),
    "vsock-with-high-bits": call(41, AF_VSOCK | 1 << 32, STREAM, 0), "vsock-pair": call(53, AF_VSOCK, STREAM, 0, BASE),
    "vsock-by-x32": call(X32 | 41, AF_VSOCK, STREAM, 0), "vsock-by-socketcall": old_socket(AF_VSOCK),
    "io_uring_setup": call(425, 8, BASE), "io_uring_enter": call(426, 0, 1, 0, 0),
    "io_uring_register": call(427, 0, 0, 0, 0), "io_uring-by-x32": call(X32 | 425, 8, BASE),
    "kernel-crypto": call(41, AF_ALG, 5, 0), "tipc": call(41, AF_TIPC, STREAM, 0), "packets": call(41, AF_PACKET, RAW, 0),
    "unshare": call(272, 0x10000000), "clone-of-a-user-namespace": call(56, 0x10000000 | 17, 0), "clone3": call(435, 0, 0),
    "mount": call(165, 0, 0, 0, 0), "bpf": call(321, 0, 0, 0), "keyctl": call(250, 0, 0, 0),
    "userfaultfd": call(323, 0), "perf": call(298, 0, 0, 0, 0), "open_by_handle_at": call(304, 0, 0, 0),
    "add_key": call(248, 0, 0, 0, 0), "kcmp": call(312, 1, 1, 0, 0), "a-call-that-no-table-has": call(5000),
}  # fmt: skip
OPEN = {
    "unix": call(41, AF_UNIX, STREAM, 0), "tcp": call(41, AF_INET, STREAM, 0), "netlink": call(41, AF_NETLINK, RAW, 0),
    "pair": call(53, AF_UNIX, STREAM, 0, BASE), "personality": call(135, 0xFFFFFFFF), "futex": call(202, BASE, 1, 1, 0),
    "memfd_create": call(319, BASE, 0), "epoll": call(291, 0), "getrandom": call(318, BASE, 0, 0),
    "inotify": call(294, 0), "pidfd_open": call(434, 1, 0), "copy_file_range": call(326, 0, 0, 0, 0),
    "statx": call(332, 0, 0, 0, 0), "ptrace": call(101, 0, 0, 0, 0), "landlock": call(444, 0, 0, 1),
}  # fmt: skip


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the programs are of x86-64")
def test_vsock_and_io_uring_are_closed_inside_a_container_and_ordinary_calls_are_not(engine):
    """Vsock ignores network namespaces and the firewall; tested with every system call interface."""
    container, pool = engine.start()
    assert container, pool.last_error
    name, state = lifecycle.runtime_name(container.pk), volumes.volume_path(container.pk, "state")
    for word, binary in (CLOSED | OPEN).items():
        (state / word).write_bytes(binary)
        (state / word).chmod(0o755)
    script = "for one in /state/*; do $one; echo ${one#/state/} $?; done"
    said = dict(line.split() for line in engine.run(container, script).splitlines())
    answers = {word: int(code) for word, code in said.items()}
    assert {word: answers[word] for word in CLOSED if answers[word] not in REFUSED} == {}
    not_there = {errno.EPERM, errno.ENOSYS, errno.EACCES}
    assert {word: answers[word] for word in OPEN if answers[word] in not_there} == {}
    assert engine.inspect(container)["HostConfig"]["SecurityOpt"][1] == seccomp.option()
    assert engine.runtime.exec(name, ("cat", "/proc/self/status"), 10_000).stdout.count(b"Seccomp:\t2") == 1


def test_an_engine_that_puts_another_profile_in_its_place_starts_nothing(engine):
    """What was made is compared with what was asked (ADR 38)."""

    def without(body: dict) -> None:
        body["HostConfig"]["SecurityOpt"] = ["no-new-privileges=true"]

    engine.filter.change = without
    container, pool = engine.start()
    assert container is None
    assert "SecurityOpt" in pool.last_error


def test_the_profile_allows_by_name_and_refuses_the_rest():
    """The list of allowed calls has no accidental entries."""
    profile = json.loads(seccomp.PATH.read_text())
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    rules = profile["syscalls"]
    free = {name for one in rules if not one.get("args") and one["action"] == "SCMP_ACT_ALLOW" for name in one["names"]}
    assert not free & {
        "socket", "socketpair", "socketcall", "clone", "io_uring_setup", "io_uring_enter", "io_uring_register", "mount",
        "unshare", "setns", "bpf", "keyctl", "userfaultfd", "perf_event_open", "open_by_handle_at", "personality",
    }  # fmt: skip
    assert [one["names"] for one in rules if one["action"] != "SCMP_ACT_ALLOW"] == [["clone3", "socketcall"]]
    domains = {one["args"][0]["value"] for one in rules if one["names"] == ["socket"]}
    assert domains == {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK}


def seen(row: Container, profile: str) -> Observed:
    return Observed(Handle(node_id(), "x", f"bh-{row.pk}"), {lifecycle.PROFILE_LABEL: profile}, True, "running")


def test_idle_containers_of_another_profile_are_replaced_one_by_one(data_dir):
    """A new profile reaches warm containers, and leaves each pool some during the change."""
    pools = [make_pool(), make_pool(), make_pool(trouble=Trouble.START_FAILED), make_pool(is_paused=True), make_pool()]
    rows = [make_container(pool, state=ContainerState.IDLE) for pool in pools for _ in range(2)]
    new = make_container(pools[1], state=ContainerState.IDLE)
    held = make_container(pools[0], state=ContainerState.CLAIMED)
    make_container(pools[4], state=ContainerState.STARTING)
    everything = {row.pk: seen(row, "earlier") for row in [*rows, held]} | {new.pk: seen(new, seccomp.version())}
    found = list(reconcile._old_profiles([*rows, new, held, *Container.objects.filter(state="starting")], everything))
    assert {one.kind for one in found} == {"old_profile"}
    named = Container.objects.filter(pk__in=[one.subject for one in found])
    assert sorted(row.pool_id for row in named) == sorted(pool.pk for pool in pools[:2])
    assert not {str(new.pk), str(held.pk)} & {one.subject for one in found}
    found[0].heal()
    assert Container.objects.get(pk=found[0].subject).state == ContainerState.REMOVING

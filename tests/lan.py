"""A neighbour on this node's LAN and beyond: a network namespace with a private and a public address, and servers.

The public address is one of documentation's (TEST-NET-2), routed to the namespace: nothing leaves this machine.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVER = """
import json, pathlib, socket, struct, sys, threading
zone, addresses = pathlib.Path(sys.argv[1]), sys.argv[2].split(",")
has_ipv6 = any(":" in address for address in addresses)
def serve(port):
    family = {"family": socket.AF_INET6, "dualstack_ipv6": True} if has_ipv6 else {}
    listener = socket.create_server(("", port), backlog=256, **family)
    while True:
        peer, (address, *_) = listener.accept()
        threading.Thread(target=talk, args=(peer, address.removeprefix("::ffff:")), daemon=True).start()
def talk(peer, address):
    with peer:
        peer.sendall(f"hello {address}\\n".encode())
        while said := peer.recv(4096):
            peer.sendall(said)
def answer(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as at:
        at.bind((address, port))
        while True:
            said, peer = at.recvfrom(4096)
            at.sendto(resolve(said) if port == 53 else said, peer)
def resolve(query):
    at, labels = 12, []
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode().lower())
        at += 1 + length
    name, kind = ".".join(labels), struct.unpack(">H", query[at + 1 : at + 3])[0]
    known = json.loads(zone.read_text())
    family = {1: socket.AF_INET, 28: socket.AF_INET6}.get(kind)
    found = [one for one in known.get(name, []) if family == (socket.AF_INET6 if ":" in one else socket.AF_INET)]
    packed = [socket.inet_pton(family, one) for one in found]
    flags = 0x8180 if name in known else 0x8183
    head = query[:2] + struct.pack(">HHHHH", flags, 1, len(found), 0, 0)
    records = b"".join(b"\\xc0\\x0c" + struct.pack(">HHIH", kind, 1, 60, len(one)) + one for one in packed)
    return head + query[12 : at + 5] + records
for port in map(int, sys.argv[3:]):
    threading.Thread(target=serve, args=(port,), daemon=True).start()
    for address in addresses[:2]:
        threading.Thread(target=answer, args=(address, port), daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


def run(*command: str, check: bool = True) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=30).stdout


@dataclass
class Neighbour:
    name: str
    private: str
    public: str
    device: str
    """What leads to it on this node."""
    zone: Path
    """Where its resolver reads which names have which addresses."""
    private6: str
    public6: str

    def resolves(self, names: dict[str, list[str]]) -> None:
        draft = self.zone.with_suffix(".new")
        draft.write_text(json.dumps(names))
        draft.rename(self.zone)

    def run(self, *command: str, check: bool = True) -> str:
        return run("ip", "netns", "exec", self.name, *command, check=check)

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(["ip", "netns", "exec", self.name, *command], text=True, **options)

    def reaches(self, address: str, port: int) -> bool:
        script = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)"
        command = ["ip", "netns", "exec", self.name, sys.executable, "-c", script, address, str(port)]
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0


@contextmanager
def neighbour(*ports: int, has_ipv6: bool = False) -> Iterator[Neighbour]:
    """One that answers on these ports, by TCP with ``hello ADDRESS`` and an echo, by UDP as a resolver on port 53."""
    number, name = 1 + secrets.randbelow(250), f"lan{secrets.token_hex(3)}"
    zone = Path(tempfile.mkdtemp()) / "zone.json"
    one = Neighbour(
        name, f"192.168.{number}.2", f"198.51.100.{number}", f"v{name}", zone,
        f"fd12:{number:x}::2", f"2001:db8:{number:x}::2",
    )  # fmt: skip
    one.resolves({})
    ours = f"192.168.{number}.1"
    run("ip", "netns", "add", name)
    try:
        run("ip", "link", "add", one.device, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "addr", "add", f"{ours}/24", "dev", one.device)
        run("ip", "link", "set", one.device, "up")
        for command in (
            "link set lo up", "link set eth0 up", f"addr add {one.private}/24 dev eth0",
            f"addr add {one.public}/32 dev eth0", f"route add default via {ours}",
        ):  # fmt: skip
            one.run("ip", *command.split())
        run("ip", "route", "add", f"{one.public}/32", "via", one.private)
        addresses = [one.private, one.public]
        if has_ipv6:
            _add_ipv6(one)
            addresses += [one.private6, one.public6]
        command = [sys.executable, "-c", SERVER, str(zone), ",".join(addresses), *map(str, ports)]
        server = one.start(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert server.stdout
        assert server.stdout.readline() == "ready\n"
        try:
            yield one
        finally:
            server.kill()
            server.wait()
    finally:
        run("ip", "netns", "del", name)
        with contextlib.suppress(subprocess.CalledProcessError):
            run("ip", "link", "del", one.device)


def _add_ipv6(one: Neighbour) -> None:
    ours = one.private6.removesuffix("2") + "1"
    run("ip", "-6", "addr", "add", f"{ours}/64", "dev", one.device, "nodad")
    for command in (
        f"addr add {one.private6}/64 dev eth0 nodad", f"addr add {one.public6}/128 dev eth0 nodad",
        f"route add default via {ours}",
    ):  # fmt: skip
        one.run("ip", "-6", *command.split())
    run("ip", "-6", "route", "add", f"{one.public6}/128", "via", one.private6)


@contextmanager
def ipv6_forwarding_kept() -> Iterator[None]:
    """Engines turn it on for networks with IPv6, and do not turn it off again."""
    paths = [Path(f"/proc/sys/net/ipv6/conf/{one}/forwarding") for one in ("all", "default")]
    before = [path.read_text() for path in paths]
    try:
        yield
    finally:
        for path, text in zip(paths, before, strict=True):
            path.write_text(text)


@contextmanager
def forwarding(device: str, bridge: str, *, has_ipv6: bool = False) -> Iterator[None]:
    """What comes in by ``device`` is forwarded to the bridge, whatever the engine's own rules say.

    As on a node whose FORWARD policy is ACCEPT. Engines since 28 also drop such packets before they are routed, in the
    table ``raw``, unless the network allows direct routing; an ACCEPT there is only about that table. So what is
    dropped after all is dropped by rules of ours.
    """
    rules = [
        ["raw", "PREROUTING", "-i", device, "-j", "ACCEPT"],
        ["filter", "FORWARD", "-i", device, "-o", bridge, "-j", "ACCEPT"],
    ]
    programs = ["iptables", "ip6tables"] if has_ipv6 else ["iptables"]
    with contextlib.ExitStack() as ended:
        for program in programs:
            for table, *rule in rules:
                run(program, "-w", "-t", table, "-I", *rule)
                ended.callback(run, program, "-w", "-t", table, "-D", *rule)
        yield

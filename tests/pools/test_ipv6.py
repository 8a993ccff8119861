"""IPv6 of containers, with a real engine and the kernel's packet filter: only the traffic that a policy allows
passes."""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from boilerhouse.operations import doctor
from pools import bridging, firewall, host, host_programs, lifecycle, packet_filter, policy_names
from pools.models import Container
from pools.runtime.base import Network
from pools.states import ContainerState
from tests.lan import Neighbour, forwarding, ipv6_forwarding_kept, neighbour, run
from tests.real_engine import LISTENING, set_policy
from tests.waiting import eventually

pytestmark = [pytest.mark.any_database, pytest.mark.django_db]
METADATA = "fd00:ec2::254"


@pytest.fixture
def outside() -> Iterator[Neighbour]:
    with neighbour(80, 81, 53, has_ipv6=True) as one:
        one.run("ip", "-6", "addr", "add", f"{METADATA}/128", "dev", "eth0", "nodad")
        run("ip", "-6", "route", "add", f"{METADATA}/128", "via", one.private6)
        yield one


@pytest.fixture(autouse=True)
def _has_ipv6(settings) -> Iterator[None]:
    settings.BOILERHOUSE_IPV6_SUBNET = f"fd4b:{secrets.token_hex(2).lstrip('0') or '1'}:7::/64"
    with ipv6_forwarding_kept():
        yield


def address_of(container: Container) -> str:
    return host.ensure_network().address6(str(container.address))


def link_local_of(device: str) -> str:
    words = run("ip", "-6", "addr", "show", "dev", device, "scope", "link").split()
    return words[words.index("inet6") + 1].split("/")[0]


@contextmanager
def listening() -> Iterator[int]:
    """The port of a server on all addresses of this node."""
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    with peer:
                        peer.sendall(b"hello")

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def answers(address: str, port: int) -> bool:
    """Whether this node reaches it."""
    try:
        with socket.create_connection((address, port), 5) as at:
            return at.recv(5) == b"hello"
    except OSError:
        return False


def test_ipv6_is_closed_but_for_what_a_policy_names(engine, outside, settings):
    """From inside, in every mode: host, neighbours, LAN, metadata, link-local, IPv4-mapped addresses."""
    one, pool = engine.start(**LISTENING)
    two, _ = engine.start(**LISTENING)
    network = host.ensure_network()
    gateway4 = str(ipaddress.ip_network(network.subnet)[1])
    assert address_of(one) in engine.run(one, "cat /proc/net/if_inet6; ip -6 addr show dev eth0")

    with listening() as port:
        gateway, node = network.address6(gateway4), outside.private6.removesuffix("2") + "1"
        eventually(lambda: answers(gateway, port))  # the kernel first looks whether anybody else has the address
        places = {
            "public": (outside.public6, 80), "other port": (outside.public6, 81), "private": (outside.private6, 80),
            "ipv4": (outside.public, 80), "gateway": (gateway, port), "node": (node, port), "metadata": (METADATA, 80),
            "link local": (f"{link_local_of(network.bridge)}%eth0", port), "neighbour": (address_of(two), 8080),
            "mapped node": (f"::ffff:{gateway4}", port), "mapped neighbour": (f"::ffff:{two.address}", 8080),
            "mapped private": (f"::ffff:{outside.private}", 80), "nat64": (f"64:ff9b::{outside.private}", 80),
        }  # fmt: skip

        def reached() -> set[str]:
            asked = (
                f"[ $(echo x | nc -w 1 {address} {port} 2>/dev/null | wc -c) = 0 ] || echo {name.replace(' ', '-')} &"
                for name, (address, port) in places.items()
            )
            return {name.replace("-", " ") for name in engine.run(one, "\n".join((*asked, "wait"))).split()}

        assert reached() == {"ipv4"}
        set_policy(pool, "internet", f"[{outside.public6}]:80")
        assert reached() == {"ipv4", "public"}
        set_policy(pool, "list", f"{outside.private6}")
        assert reached() == {"private"}
        settings.BOILERHOUSE_ALLOW_OPEN_NETWORK = True
        set_policy(pool, "open")
        assert reached() == {"ipv4", "public", "other port", "private", "mapped private"}
    assert firewall.differences(network) == []


@pytest.mark.long  # the same chain keeps them out by IPv4, which make test tries
def test_no_one_outside_the_node_reaches_a_containers_address_of_ipv6(engine, outside):
    """Also where the containers' network is routed to the node."""
    one, pool = engine.start(**LISTENING)
    set_policy(pool, "internet", "2000::/3", "fc00::/7")
    eventually(lambda: engine.answer_from(one, outside.public6, 80).startswith("hello"))
    with forwarding(outside.device, host.bridge_name(), has_ipv6=True):
        assert not outside.reaches(address_of(one), 8080)
        firewall.remove(host.bridge_name())
        assert outside.reaches(address_of(one), 8080)  # so it was our rule that kept it out
        packet_filter.keep()
        assert not outside.reaches(address_of(one), 8080)


@pytest.mark.long  # the same rules end those of IPv4, which make test tries
def test_a_connection_by_ipv6_ends_when_it_is_closed(engine, outside):
    """Like those of IPv4."""
    one, pool = engine.start()
    set_policy(pool, "list", f"[{outside.public6}]:80")
    script = (
        f"(while :; do echo tick; sleep 0.1; done) | nc {outside.public6} 80 > /tmp/heard; echo ended >> /tmp/heard"
    )
    engine.run(one, f"({script}) >/dev/null 2>&1 &")
    eventually(lambda: "tick" in engine.run(one, "cat /tmp/heard"))
    set_policy(pool, "list", f"[{outside.public6}]:81")

    eventually(lambda: "ended" in engine.run(one, "cat /tmp/heard"))


@pytest.mark.long  # names and their tricks are tried by IPv4 in make test
def test_names_open_addresses_of_ipv6_that_are_public(engine, outside, settings):
    """AAAA as well as A, without loopholes."""
    settings.BOILERHOUSE_RESOLVERS = [outside.private]
    tricks = [outside.private6, METADATA, "::1", "fe80::1", f"::ffff:{outside.private}", "2002:c0a8::1"]
    outside.resolves({"six.example.com": [outside.public6, *tricks], "none.example.com": []})
    one, pool = engine.start()
    set_policy(pool, "list", "six.example.com:80", "none.example.com:80")

    eventually(lambda: engine.answer_from(one, "six.example.com", 80).startswith("hello"))
    assert engine.answer_from(one, outside.public6, 81) == ""
    opened = {row.name: row for row in policy_names.known(["six.example.com", "none.example.com"])}
    assert opened["six.example.com"].addresses == [outside.public6]
    assert "only public addresses" in opened["six.example.com"].problem
    assert opened["none.example.com"].problem == "The name has no IPv4 and no IPv6 address."


ROGUE = """
import socket, struct, sys
at = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
at.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
prefix = struct.pack("!BBBBIII16s", 3, 4, 64, 0xC0, 600, 600, 0, socket.inet_pton(socket.AF_INET6, "2001:db8:bad::"))
for _ in range(5):
    message = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 600, 0, 0) + prefix
    at.sendto(message, ("ff02::1", 0, 0, socket.if_nametoindex("eth0")))
"""


@contextmanager
def namespaces(*names: str) -> Iterator[None]:
    with contextlib.ExitStack() as ended:
        for name in names:
            run("ip", "netns", "add", name)
            ended.callback(run, "ip", "netns", "del", name)
        yield


def bridge_of(host: str, name: str, one: str, two: str) -> None:
    """Make a bridge in one namespace that connects two others, which have the addresses fd77::1 and fd77::2."""
    run("ip", "-n", host, "link", "add", name, "type", "bridge")
    run("ip", "-n", host, "link", "set", name, "up")
    for number, end in enumerate((one, two), 1):
        run("ip", "-n", host, "link", "add", f"v{end}", "type", "veth", "peer", "name", "eth0", "netns", end)
        run("ip", "-n", host, "link", "set", f"v{end}", "master", name, "up")
        run("ip", "-n", end, "-6", "addr", "add", f"fd77::{number}/64", "dev", "eth0", "nodad")
        run("ip", "-n", end, "link", "set", "eth0", "up")


TALK = """
import socket, sys
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as at:
    at.settimeout(1)
    at.bind(("::", 9))
    if sys.argv[1:]:
        at.sendto(b"hello", (sys.argv[1], 9))
    else:
        print("ready", flush=True)
        print(at.recvfrom(9)[0].decode())
"""


def hears(one: str, two: str, address: str) -> bool:
    """Whether a datagram from one namespace arrives in the other, which has this address."""
    ears = subprocess.Popen(
        ["ip", "netns", "exec", two, sys.executable, "-c", TALK],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert ears.stdout
    with ears.stdout:
        assert ears.stdout.readline() == "ready\n"
        run("ip", "netns", "exec", one, sys.executable, "-c", TALK, address, check=False)
        ears.wait(30)
        return ears.stdout.read() == "hello\n"


@pytest.fixture
def node(data_dir, monkeypatch) -> Iterator[str]:
    """A namespace that the packet filter takes for this host: other deployments of this host have no rules in it."""
    name = f"node{secrets.token_hex(3)}"

    def in_node(command: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
        return host_programs.run(["ip", "netns", "exec", name, *command], text)

    monkeypatch.setattr(firewall, "run", in_node)
    monkeypatch.setattr(bridging, "run", in_node)
    with namespaces(name):
        in_node(["sysctl", "-q", "net.bridge.bridge-nf-call-ip6tables=0"])  # as most hosts have it
        yield name


BRIDGED = Network("bh-test", "bhtest0", "10.99.0.0/16", "10.99.0.1", "fd99::/64")


def test_ipv6_passes_over_bridges_of_others_and_not_over_ours(node):
    """Our rules apply to our containers only: virtual machines and other engines' networks keep IPv6."""
    ends = [f"{name}{secrets.token_hex(3)}" for name in ("a", "b", "c", "d")]
    with namespaces(*ends):
        bridge_of(node, "theirs", *ends[:2])
        bridge_of(node, BRIDGED.bridge, *ends[2:])
        eventually(lambda: hears(*ends[:2], "fd77::2"))
        eventually(lambda: hears(*ends[2:], "fd77::2"))
        firewall.apply(BRIDGED)
        assert firewall.differences(BRIDGED) == []
        assert not hears(*ends[2:], "fd77::2")
        assert hears(*ends[:2], "fd77::2")
        run("ip", "-n", node, "link", "set", BRIDGED.bridge, "type", "bridge", "nf_call_ip6tables", "0")
        assert hears(*ends[2:], "fd77::2")  # so the switch of our bridge alone does it
        assert firewall.restore(BRIDGED)
        assert not hears(*ends[2:], "fd77::2")


def test_a_neighbour_is_nobodys_router(node):
    """Router advertisements on the bridge, sent with every privilege, change no route of another container."""
    victim, rogue = (f"{name}{secrets.token_hex(3)}" for name in ("v", "r"))

    def announced() -> str:
        run("ip", "netns", "exec", rogue, sys.executable, "-c", ROGUE)
        time.sleep(0.5)
        return run("ip", "-n", victim, "-6", "route")

    with namespaces(victim, rogue):
        bridge_of(node, BRIDGED.bridge, victim, rogue)
        for one in (victim, rogue):
            eventually(
                lambda one=one: "fe80" in run("ip", "-n", one, "-6", "addr", "show", "dev", "eth0", "-tentative")
            )
        firewall.apply(BRIDGED)
        assert "2001:db8:bad" not in announced()
        firewall.remove(BRIDGED.bridge)
        eventually(lambda: "2001:db8:bad::/64" in announced())  # so it was our rule that kept it out


@pytest.mark.long  # about a change of a setting; the engine makes two networks
def test_a_network_gets_ipv6_when_no_container_is_left_in_it(engine, settings):
    """Running containers continue unchanged; doctor says what to do, and the API reports the actual policy."""
    subnet6 = settings.BOILERHOUSE_IPV6_SUBNET
    settings.BOILERHOUSE_IPV6_SUBNET = ""
    one, _ = engine.start()
    settings.BOILERHOUSE_IPV6_SUBNET = subnet6
    network = host.ensure_network()
    assert network.subnet6 == ""
    assert "eth0" not in engine.run(one, "cat /proc/net/if_inet6; true")
    told = [found.detail for found in doctor.examine() if found.name == "packet filter"]
    assert told[0] == "containers have IPv6 in no network, unlike BOILERHOUSE_IPV6_SUBNET"
    Container.objects.filter(pk=one.pk).transition(ContainerState.IDLE, ContainerState.REMOVING)
    lifecycle.destroy_container(one.pk)
    again = host.ensure_network()
    assert (again.subnet6, again.subnet) == (subnet6, network.subnet)
    two, _ = engine.start()
    assert "eth0" in engine.run(two, "cat /proc/net/if_inet6")

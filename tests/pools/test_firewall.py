"""Traffic from and to a container, with a real engine and the kernel's packet filter."""

from __future__ import annotations

import ipaddress
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
import requests
from django.core.management import call_command
from django.db import connection

from boilerhouse.core import clock, deployment
from boilerhouse.operations import doctor, health
from pools import (
    bridging,
    firewall,
    host,
    lifecycle,
    name_resolution,
    packet_filter,
    packet_rules,
    policy_names,
    resolvers,
)
from pools.egress import Egress
from pools.errors import HostNotReady
from pools.models import Container, NetworkReport, Pool, ResolvedName
from pools.packet_rules import Guarded
from pools.runtime.base import Network
from pools.states import ContainerState
from tests.lan import Neighbour, forwarding, neighbour, run
from tests.real_engine import LISTENING, Engine, set_policy
from tests.waiting import eventually

pytestmark = [pytest.mark.any_database, pytest.mark.django_db]
NETWORK = Network("bh-test", "bhtest0", "10.99.0.0/16", "10.99.0.1")


@pytest.fixture
def outside() -> Iterator[Neighbour]:
    with neighbour(80, 81, 53) as one:
        yield one


@pytest.fixture
def tables(data_dir: object) -> Iterator[None]:
    yield
    firewall.remove(NETWORK.bridge)


def resolved(at: Engine, container: object, name: str, server: str) -> str:
    """A resolver's answer over UDP."""
    return at.run(container, f"timeout 2 nslookup -type=a {name} {server} 2>&1; true")


def test_public_addresses_are_open_and_all_others_closed(engine, outside):
    """By default a container reaches public addresses, but not the host, LAN, metadata service or neighbours."""
    outside.resolves({"www.example.com": ["192.0.2.77"]})
    one, _ = engine.start(**LISTENING)
    two, _ = engine.start(**LISTENING)
    gateway = str(ipaddress.ip_network(host.ensure_network().subnet)[1])
    ours = outside.private.rsplit(".", 1)[0] + ".1"

    assert engine.answer_from(one, outside.public, 80).startswith("hello")
    assert "192.0.2.77" in resolved(engine, one, "www.example.com", outside.public)
    for address in (outside.private, gateway, ours, "169.254.169.254", "100.100.100.200", "168.63.129.16"):
        assert engine.answer_from(one, address, 80) == "", address
    assert "192.0.2.77" not in resolved(engine, one, "www.example.com", outside.private)
    assert engine.answer_from(one, two.address, 8080) == ""
    assert "can't connect" in engine.run(one, "nc -w 1 2001:db8::1 80 2>&1; true")
    assert "eth0" not in engine.run(one, "cat /proc/net/if_inet6 2>/dev/null; true")
    # Nor does it see who is there: no neighbour answers a question for its hardware address.
    arp = engine.run(one, "cat /proc/net/arp")
    assert re.search(rf"^{re.escape(gateway)} .* 0x2 ", arp, re.MULTILINE)
    assert not re.search(rf"^{re.escape(two.address)} .* 0x2 ", arp, re.MULTILINE)


def test_no_one_outside_the_node_reaches_a_container(engine, outside):
    """A neighbour on the LAN with a route to the containers' network; published ports still work."""
    one, _ = engine.start(**{**LISTENING, "ports": [{"name": "http", "container_port": 8080, "publish": True}]})
    network = host.ensure_network()
    place = one.host_ports["http"]
    with forwarding(outside.device, network.bridge):
        assert not outside.reaches(one.address, 8080)
        firewall.remove(network.bridge)
        assert outside.reaches(one.address, 8080)  # so it was our rule that kept it out
        assert packet_filter.keep() is None
        assert not outside.reaches(one.address, 8080)

    assert requests.get(f"http://{one.address}:8080/", timeout=5).text == "mine\n"
    assert requests.get(f"http://{place}/", timeout=5).text == "mine\n"


@pytest.mark.parametrize(
    "vandal",
    [
        "nft flush ruleset inet; nft delete table bridge {table}; true",
        "nft delete table inet {table}",
        "nft flush chain inet {table} outward",
        "nft insert rule inet {table} forward accept",
        "nft delete element inet {table} policies {{ 10.99.0.7 }}",
        "nft flush table bridge {table}",
        "nft delete element inet {table} policies6 {{ fd12::7 }}",
        "nft flush chain inet {table} leaving",
        "nft add element inet {table} never {{ 1.1.1.1 }}",
        "nft add chain inet {table} mine {{ type filter hook forward priority 5 \\; policy drop \\; }}",
    ],
)
def test_what_is_not_in_force_is_found_and_restored(tables, monkeypatch, vandal):
    """If a rule of ours is removed, added or changed, the comparison names it and restores it."""
    cs = [Guarded("10.99.0.7", Egress(), ("10.255.255.53",), None, "fd12::7"), Guarded("10.99.0.8", Egress(), ())]
    network = replace(NETWORK, subnet6="fd12::/64")
    wanted = packet_rules.ruleset(network, cs)
    firewall._load(wanted)
    assert firewall._compare(firewall._as_listed(wanted), firewall._listing()) == []
    # Not the whole ruleset of this machine: others test on it, too.
    vandal = vandal.replace("nft flush ruleset inet", "nft delete table inet {table}").format(
        table=packet_rules.table()
    )
    subprocess.run(["sh", "-ec", vandal], check=True)

    assert firewall._compare(firewall._as_listed(wanted), firewall._listing())
    monkeypatch.setattr(firewall, "_guarded", lambda rows, network: cs)
    assert firewall.restore(network)
    assert firewall.restore(network) == []
    assert firewall._listing() == firewall._as_listed(wanted)


def test_reconcile_shows_and_mends_the_packet_filter(engine, capsys):
    """On request, as workers do automatically; leftovers of former policies do not accumulate in the kernel."""
    one, pool = engine.start()
    run("nft", "flush", "chain", "inet", packet_rules.table(), "outward")
    call_command("reconcile", dry_run=True)
    assert "inet outward differs from what it should be  (would be repaired)" in capsys.readouterr().out
    call_command("reconcile")
    assert "inet outward differs from what it should be  (repaired)" in capsys.readouterr().out
    call_command("reconcile")
    assert "packet_filter" not in capsys.readouterr().out
    for number in range(3):
        set_policy(pool, "list", f"192.0.2.{number}:80")
    left = {name for name in firewall._listing() if name.startswith(("inet to_", "inet from_"))}
    assert len(left) > 2

    packet_filter.keep()
    network = host.ensure_network()
    wanted = packet_rules.ruleset(network, firewall._guarded(firewall._rows(), network))
    assert firewall._listing() == firewall._as_listed(wanted)
    Container.objects.filter(pk=one.pk).transition(ContainerState.IDLE, ContainerState.REMOVING)
    lifecycle.destroy_container(one.pk)
    packet_filter.keep()
    assert firewall._listing() == firewall._as_listed(packet_rules.ruleset(network, []))


def test_another_deployments_tables_are_not_touched(tables):
    """Two deployments on one host (P9)."""
    other = "table inet boilerhouse_0ther { chain forward { drop; }; }"
    subprocess.run(["nft", "-f", "-"], input=other, text=True, check=True)
    try:
        before = run("nft", "list", "table", "inet", "boilerhouse_0ther")
        firewall._load(packet_rules.ruleset(NETWORK, []))
        firewall.remove(NETWORK.bridge)
        assert run("nft", "list", "table", "inet", "boilerhouse_0ther") == before
        assert packet_rules.table() not in run("nft", "list", "tables")
    finally:
        run("nft", "delete", "table", "inet", "boilerhouse_0ther")


def test_rules_of_earlier_versions_go_with_a_purge(tables):
    comment = f"boilerhouse {deployment.deployment_id()}"
    rule = ["INPUT", "-i", NETWORK.bridge, "-m", "conntrack", "--ctstate", "NEW", "-m", "comment", "--comment", comment]
    run("iptables", "-w", "-I", *rule, "-j", "DROP")
    firewall.remove(NETWORK.bridge)

    assert NETWORK.bridge not in run("iptables", "-w", "-S")


def test_without_the_bridge_filter_nothing_starts(tables, monkeypatch, tmp_path):
    """Without bridge filtering, containers would reach each other."""
    monkeypatch.setattr(bridging, "_MODULE", tmp_path / "none")

    with pytest.raises(HostNotReady, match="modprobe br_netfilter"):
        firewall.apply(NETWORK)


def test_what_cannot_be_restored_stands_in_readiness(engine, monkeypatch, tmp_path):
    engine.start()
    with monkeypatch.context() as patches, pytest.raises(HostNotReady):
        patches.setattr(bridging, "_MODULE", tmp_path / "none")
        packet_filter.keep()
    assert "br_netfilter" in health.readiness()["network"]
    packet_filter.keep()

    assert health.readiness()["network"] == "ok"
    assert NetworkReport.objects.get().problem == ""


def test_a_bridge_that_hands_nothing_over_is_found_and_restored(engine):
    """Like every rule, and independently of the host's bridge sysctls."""
    engine.start()
    network = host.ensure_network()
    assert firewall.differences(network) == []
    run("ip", "link", "set", "dev", network.bridge, "type", "bridge", "nf_call_iptables", "0", "nf_call_ip6tables", "0")
    unseen = [f"the bridge {network.bridge} hands no {family} to the packet filter" for family in ("IPv4", "IPv6")]

    assert firewall.differences(network) == unseen
    assert firewall.restore(network) == unseen
    assert firewall.differences(network) == []


def test_many_that_change_the_rules_at_once_leave_all_of_them(tables, monkeypatch):
    """The rows are read under the lock: what is loaded last is newest."""
    known: list[Guarded] = []
    monkeypatch.setattr(firewall, "_guarded", lambda rows, network: list(known))

    def start(number: int) -> None:
        known.append(Guarded(f"10.99.1.{number}", Egress(), ()))
        try:
            firewall.apply(NETWORK)
        finally:
            connection.close()
        assert f"10.99.1.{number}" in run("nft", "list", "map", "inet", packet_rules.table(), "policies")

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(start, range(1, 17)))
    assert firewall.differences(NETWORK) == []


# Policies ---------------------------------------------------------------------------------------------


def test_each_mode_opens_what_it_says_and_no_more(engine, outside, settings):
    """none, list, internet with more, open: each is in force on a running container when the call returns."""
    outside.resolves({"www.example.com": ["192.0.2.77"]})
    one, pool = engine.start(**LISTENING)
    public, private = outside.public, outside.private

    def reached() -> set[str]:
        places = {"public": (public, 80), "other port": (public, 81), "private": (private, 80)}
        found = {name for name, place in places.items() if engine.answer_from(one, *place).startswith("hello")}
        return found | ({"dns"} if "192.0.2.77" in resolved(engine, one, "www.example.com", public) else set())

    set_policy(pool, "none")
    assert reached() == set()
    set_policy(pool, "list", f"{public}:80")
    assert reached() == {"public"}
    set_policy(pool, "list", f"{private}/32:80", f"{public}:53")
    assert reached() == {"private", "dns"}
    set_policy(pool, "internet", f"{private}:80")
    assert reached() == {"public", "other port", "dns", "private"}
    set_policy(pool, "open")
    assert reached() == {"public", "other port", "dns"}  # the deployment does not allow it
    settings.BOILERHOUSE_ALLOW_OPEN_NETWORK = True
    set_policy(pool, "open")
    assert reached() == {"public", "other port", "dns", "private"}
    gateway = str(ipaddress.ip_network(host.ensure_network().subnet)[1])
    assert engine.answer_from(one, gateway, 22) == ""
    assert engine.answer_from(one, "169.254.169.254", 80) == ""


def test_what_narrows_a_policy_opens_nothing_that_the_pool_closes(engine, outside):
    """Both must accept a packet, also when the pool's policy changes afterwards."""
    one, pool = engine.start(**LISTENING)
    public, private = outside.public, outside.private
    Container.objects.filter(pk=one.pk).update(egress={"mode": "list", "allow": [f"{public}:80", f"{private}:80"]})
    packet_filter.apply()
    assert engine.answer_from(one, public, 80).startswith("hello")
    assert engine.answer_from(one, public, 81) == ""
    assert engine.answer_from(one, private, 80) == ""
    set_policy(pool, "list", f"{public}:81")
    assert engine.answer_from(one, public, 80) == ""
    assert engine.answer_from(one, public, 81) == ""
    assert firewall.differences(host.ensure_network()) == []


def test_a_connection_that_stands_ends_when_it_is_closed(engine, outside):
    """A policy applies to packets of existing connections too."""
    one, pool = engine.start(**LISTENING)
    script = f"(while :; do echo tick; sleep 0.1; done) | nc {outside.public} 80 > /tmp/heard; echo ended >> /tmp/heard"
    engine.run(one, f"({script}) >/dev/null 2>&1 &")
    eventually(lambda: "tick" in engine.run(one, "cat /tmp/heard"))
    set_policy(pool, "none")

    eventually(lambda: "ended" in engine.run(one, "cat /tmp/heard"))


SENDER = """
import socket, sys, threading, time
server = socket.create_server(("", 82))
at = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
at.bind((sys.argv[1], 83))
def tcp():
    peer, _ = server.accept()
    try:
        while True:
            peer.sendall(b"tick")
            time.sleep(0.02)
    except OSError as error:
        print("ended:", type(error).__name__, flush=True)
def udp():
    _, peer = at.recvfrom(100)
    while True:
        at.sendto(b"tick", peer)
        time.sleep(0.02)
for one in (tcp, udp):
    threading.Thread(target=one, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""
LISTENER = """
import socket, sys, threading
got = {"tcp": 0, "udp": 0}
def read(kind, at):
    try:
        while said := at.recv(4096):
            got[kind] += len(said)
    except OSError:
        got[kind] = -1
tcp = socket.create_connection((sys.argv[1], 82), 5)
tcp.settimeout(None)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.sendto(b"me", (sys.argv[1], 83))
for kind, at in (("tcp", tcp), ("udp", udp)):
    threading.Thread(target=read, args=(kind, at), daemon=True).start()
for _ in sys.stdin:
    print(got["tcp"], got["udp"], flush=True)
"""


@pytest.mark.parametrize(
    "narrower",
    # What narrows is another chain of the same rules; each takes a container.
    [pytest.param("none", marks=pytest.mark.long), "list", pytest.param("own", marks=pytest.mark.long)],
)
def test_a_far_end_sends_nothing_more_into_what_was_closed(engine, outside, narrower):
    """Connection tracking opens nothing, and the other end of a closed connection is told that it has ended."""
    one, pool = engine.start()
    pid = engine.runtime.inspect(lifecycle.runtime_name(one.pk)).pid
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    sender = outside.start(sys.executable, "-c", SENDER, outside.public, **piped)
    assert sender.stdout.readline() == "ready\n"
    command = ["nsenter", "-t", str(pid), "-n", sys.executable, "-c", LISTENER, outside.public]
    listener = subprocess.Popen(command, text=True, **piped)

    def heard() -> tuple[int, int]:
        listener.stdin.write("\n")
        listener.stdin.flush()
        tcp, udp = map(int, listener.stdout.readline().split())
        return tcp, udp

    def hears_nothing_more() -> bool:
        before = heard()
        time.sleep(0.5)
        return heard() == before

    try:
        eventually(lambda: min(heard()) > 0)
        if narrower == "own":
            allow = [f"{outside.public}:81"]
            Container.objects.filter(pk=one.pk).update(egress={"mode": "list", "allow": allow})
            packet_filter.apply()
        else:
            set_policy(pool, narrower, *([f"{outside.public}:81"] if narrower == "list" else []))
        assert sender.stdout.readline() == "ended: ConnectionResetError\n"
        eventually(hears_nothing_more)  # once it has read what had come before
    finally:
        for process in (sender, listener):
            process.kill()
            process.communicate()


@pytest.mark.long  # waits for an error that does not come
def test_errors_about_what_is_open_come_back(engine, outside):
    """A program is refused at once where nothing listens, also where a list allows only that address."""
    one, pool = engine.start()
    pid = engine.runtime.inspect(lifecycle.runtime_name(one.pk)).pid
    script = (
        "import socket, sys; at = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); at.settimeout(3);"
        "at.connect((sys.argv[1], 9)); at.send(b'x'); at.recv(9)"
    )
    command = ["nsenter", "-t", str(pid), "-n", sys.executable, "-c", script, outside.public]

    def told() -> str:
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr.splitlines()[-1]

    assert "ConnectionRefusedError" in told()
    set_policy(pool, "list", f"{outside.public}:9")
    assert "ConnectionRefusedError" in told()
    set_policy(pool, "list", f"{outside.public}:8")
    assert "ConnectionRefusedError" not in told()


def test_resolvers_that_are_private_answer_on_their_port_alone(engine, outside, settings):
    """DNS is open; other ports of the resolver's address are not."""
    outside.resolves({"www.example.com": ["192.0.2.77"]})
    settings.BOILERHOUSE_RESOLVERS = [outside.private]
    one, _ = engine.start(**LISTENING)
    other, _ = engine.start(**LISTENING, dns=["192.0.2.53"])

    assert "192.0.2.77" in resolved(engine, one, "www.example.com", outside.private)
    assert engine.answer_from(one, outside.private, 80) == ""
    assert "192.0.2.77" not in resolved(engine, other, "www.example.com", outside.private)


# Names ------------------------------------------------------------------------------------------------


def test_neighbours_are_not_told_of_by_the_engines_resolver(engine, outside, settings):
    """Neither by address nor by name; outside names are resolved by the node's resolvers."""
    settings.BOILERHOUSE_RESOLVERS = [outside.private]
    outside.resolves({"www.example.com": ["192.0.2.77"]})
    one, _ = engine.start(**LISTENING, extra_hosts={"db.internal": "192.0.2.9"})
    two, _ = engine.start(**LISTENING)
    name = lifecycle.runtime_name(two.pk)
    asked = "".join(f"timeout 3 nslookup {what} 127.0.0.11 2>&1; " for what in (two.address, name, "www.example.com"))

    found = engine.run(one, f"{asked} true")
    assert name not in found.replace(f"{name}:", "").replace(f"find {name}", "")
    assert deployment.deployment_id() not in found
    assert two.address not in found.replace(f"'{two.address}'", "")
    assert "192.0.2.77" not in found
    assert "192.0.2.77" in engine.run(one, "timeout 5 nslookup -type=a www.example.com 2>&1; true")
    assert engine.run(one, "cat /etc/resolv.conf") == f"nameserver {outside.private}\n"
    assert "192.0.2.9\tdb.internal" in engine.run(one, "cat /etc/hosts")
    assert f"{one.address}\t{lifecycle.hostname(one.pk)}" in engine.run(one, "cat /etc/hosts")
    assert engine.run(one, "hostname") == f"{lifecycle.hostname(one.pk)}\n"
    assert engine.run(one, "echo x > /etc/hosts 2>&1 || echo refused").strip().endswith("refused")


@pytest.mark.long  # the doctor examines everything twice
def test_doctor_says_that_a_resolver_on_loopback_is_of_no_use_to_containers(engine, tmp_path, monkeypatch):
    """Otherwise names would not resolve in any container."""
    conf = tmp_path / "resolv.conf"
    conf.write_text("search lan\nnameserver 127.0.0.1\nnameserver ::1\n")
    monkeypatch.setattr(resolvers, "RESOLV_CONF", conf)
    monkeypatch.setattr(resolvers, "BEHIND_SYSTEMD", tmp_path / "none")
    one, _ = engine.start()
    assert engine.run(one, "cat /etc/resolv.conf") == ""
    assert "example.com" not in engine.run(one, "timeout 5 nslookup www.example.com 2>/dev/null | grep Name; true")
    (found,) = [one for one in doctor.examine() if one.name == "resolvers"]
    assert found.state == doctor.WARN
    assert "(127.0.0.1, ::1)" in found.detail
    assert "BOILERHOUSE_RESOLVERS" in found.todo
    monkeypatch.setattr(resolvers, "BEHIND_SYSTEMD", conf)
    conf.write_text("nameserver 192.0.2.53\n")
    assert [one.detail for one in doctor.examine() if one.name == "resolvers"] == [
        "containers resolve names with 192.0.2.53"
    ]


def test_a_resolver_that_opened_again_is_closed(engine):
    """Compared by the reconcile, like every rule."""
    one, _ = engine.start(**LISTENING)
    pid = engine.runtime.inspect(lifecycle.runtime_name(one.pk)).pid
    assert name_resolution.is_closed(pid)
    run("nsenter", "-t", str(pid), "-n", "nft", "delete", "table", "ip", name_resolution.TABLE)
    assert not name_resolution.is_closed(pid)
    asked = f"timeout 3 nslookup {one.address} 127.0.0.11 2>&1; true"
    assert lifecycle.runtime_name(one.pk) in engine.run(one, asked)  # what the rule keeps from tenants
    packet_filter.keep()

    assert lifecycle.runtime_name(one.pk) not in engine.run(one, asked)

    assert name_resolution.is_closed(pid)


def test_a_list_opens_what_its_names_stand_for(engine, outside, settings, monkeypatch):
    """Exactly the port of the name's addresses; DNS stays closed, and the hosts file contains the name."""
    settings.BOILERHOUSE_RESOLVERS = [outside.private]
    outside.resolves({"api.example.com": [outside.public]})
    one, pool = engine.start(**LISTENING)
    set_policy(pool, "list", "api.example.com:80", "nowhere.example.com:80")

    assert engine.answer_from(one, "api.example.com", 80).startswith("hello")
    assert engine.answer_from(one, outside.public, 81) == ""
    assert "198.51" not in resolved(engine, one, "api.example.com", outside.private)
    assert [(row.name, row.problem) for row in policy_names.known(["api.example.com", "nowhere.example.com"])] == [
        ("api.example.com", ""), ("nowhere.example.com", "No such name."),
    ]  # fmt: skip
    assert [one.code for one in Pool.objects.with_counts().get(pk=pool.pk).status().warnings] == ["name_unresolved"]
    # Round robin: another address is answered, and the first stays open for a while.
    outside.resolves({"api.example.com": ["198.51.100.254"]})
    ResolvedName.objects.update(next_at=clock.now())
    packet_filter.refresh_names()
    assert engine.answer_from(one, outside.public, 80).startswith("hello")
    assert "198.51.100.254\tapi.example.com" in engine.run(one, "cat /etc/hosts")
    monkeypatch.setattr(policy_names, "KEEP", timedelta(0))
    packet_filter.apply()
    assert engine.answer_from(one, outside.public, 80) == ""
    set_policy(pool, "internet")
    assert "api.example.com" not in engine.run(one, "cat /etc/hosts")


@pytest.mark.parametrize("trick", ["private", "neighbour", "loopback", "metadata", "multicast", "gateway", "any"])
def test_a_name_opens_nothing_that_is_private(outside, data_dir, settings, trick):
    """The owner of a name decides what it resolves to, but not what that opens."""
    settings.BOILERHOUSE_RESOLVERS = [outside.private]
    tricks = {
        "private": outside.private, "neighbour": "10.99.0.8", "loopback": "127.0.0.11", "metadata": "169.254.169.254",
        "multicast": "224.0.0.1", "gateway": "10.99.0.1", "any": "0.0.0.0",
    }  # fmt: skip
    outside.resolves({"evil.example.com": [tricks[trick], outside.public]})
    found = policy_names.ask("evil.example.com")

    assert found.addresses == (outside.public,)
    assert tricks[trick] in found.error


def test_a_container_sends_no_packet_before_its_rules(engine, outside):
    """A program that tries from its first instruction never reaches a forbidden address."""
    script = f"while :; do echo x | nc -w 1 {outside.private} 80 >/dev/null 2>&1; done"

    def segments() -> int:
        """Of TCP that ever came to the neighbour's kernel."""
        names, values = (line.split() for line in outside.run("grep", "^Tcp:", "/proc/net/snmp").splitlines())
        return int(values[names.index("InSegs")])

    before = segments()
    pools = [engine.start(command=["sh", "-c", script], stop_timeout_ms=1)[1] for _ in range(6)]
    assert segments() == before
    set_policy(pools[-1], "internet", f"{outside.private}:80")
    eventually(lambda: segments() > before)  # they did try all the time

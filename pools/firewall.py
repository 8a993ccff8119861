"""The packet filter of this deployment's containers: what is in force on this host, from rows.

Two tables of nftables carry the deployment's id, one for packets and one for frames between ports of the bridge. They
only ever drop, before and beside whatever the engine and the operator set, and are replaced as a whole in one
transaction of the kernel. A container's address that no rule knows sends nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_network
from typing import Any

from django.conf import settings

from boilerhouse.core import deployment, file_locks
from boilerhouse.core.models import Node
from boilerhouse.queues.tasks import enqueue
from pools import bridging, egress, named, resolvers
from pools.egress import Egress, Entry, Mode
from pools.errors import HostNotReady
from pools.host_programs import run
from pools.models import Container, WorkloadVersion
from pools.packet_rules import FAMILIES, WAYS, Guarded, declared, ruleset, table
from pools.runtime.base import Network

CHANGING_S = 60.0
"""Whoever sets rules is done by then, or stands still."""
MAPS = tuple(f"inet {way.verdicts}" for way in WAYS)


# What should be in force ------------------------------------------------------------------------------


def _rows() -> list[Container]:
    """Every container of this node that has an address."""
    rows = Container.objects.here().filter(address__isnull=False)
    return list(rows.select_related("pool").order_by("address"))


def _guarded(rows: Sequence[Container], network: Network) -> list[Guarded]:
    versions = WorkloadVersion.objects.in_bulk({row.version_id for row in rows})
    own = {pk: tuple(version.spec_json.get("dns") or ()) for pk, version in versions.items()}
    of_node, addresses = resolvers.of_node(), named.open_addresses()
    return [
        Guarded(
            str(row.address),
            _resolved(_allowed(row.pool.policy), addresses),
            tuple((row.network or {}).get("dns") or own[row.version_id] or of_node),
            row.narrowing and _resolved(row.narrowing, addresses),
            network.address6(str(row.address)),
        )
        for row in rows
    ]


def _resolved(policy: Egress, addresses: Mapping[str, Sequence[str]]) -> Egress:
    """The policy with addresses in the place of names; one that is not known opens nothing."""
    if not policy.names:
        return policy
    allow: list[Entry] = []
    for entry in policy.allow:
        found = [replace(entry, network=ip_network(one), name="") for one in addresses.get(entry.name, ())]
        allow += found if entry.network is None else [entry]
    return replace(policy, allow=tuple(allow))


def _allowed(policy: Egress) -> Egress:
    """The policy as far as the deployment still allows it."""
    is_open = policy.mode == Mode.OPEN and not settings.BOILERHOUSE_ALLOW_OPEN_NETWORK
    return egress.DEFAULT if is_open else policy


# What is in force -------------------------------------------------------------------------------------

Tables = dict[str, frozenset[str]]
"""Part of the tables → what it holds and is, each rule or element as the kernel spells it."""


def _listing() -> Tables:
    """The deployment's tables as this host's kernel holds them."""
    found: Tables = {}
    for family in FAMILIES:
        done = run(["nft", "-j", "list", "table", family, table()])
        if done.returncode == 0:
            _hold_all(done.stdout, found)
        elif "No such file" not in done.stderr:
            raise HostNotReady(f"The packet filter cannot be read: {done.stderr.strip()[:300]}")
    return found


@lru_cache(4)
def _as_listed(text: str) -> Tables:
    """How the kernel spells ``text``: the same program says both, so no spelling is ours to know.

    It is loaded into a network namespace that ends with the command, where nothing is changed for anybody.
    """
    done = run(["unshare", "-n", "sh", "-c", "nft -f - && nft -j list ruleset"], text)
    if done.returncode != 0:
        raise HostNotReady(f"The packet filter cannot be tried: {done.stderr.strip()[:300]}")
    found: Tables = {}
    _hold_all(done.stdout, found)
    return found


def _hold_all(listed: str, found: Tables) -> None:
    for item in json.loads(listed)["nftables"]:
        _hold(item, found)


def _hold(item: dict[str, Any], found: Tables) -> None:
    kind, held = next(iter(item.items()))
    where = f"{held.get('family')} {held.get('chain') or held.get('name')}"
    if kind == "rule":
        position = sum(one.startswith("rule ") for one in found.get(where, ()))
        added = frozenset({f"rule {position} {json.dumps(held['expr'], sort_keys=True)}"})
    elif kind == "chain":
        added = frozenset({"a chain", *(f"{name} {held[name]}" for name in ("hook", "prio", "policy") if name in held)})
    elif kind in ("set", "map"):
        added = frozenset(json.dumps(one, sort_keys=True) for one in held.get("elem", ())) | {f"a {kind}"}
    else:
        return
    found[where] = found.get(where, frozenset()) | added


def differences(network: Network) -> list[str]:
    """What of the tables is not in force as it should be, in words. Raises HostNotReady."""
    found = _compare(_as_listed(ruleset(network, _guarded(_rows(), network))), _listing())
    return found + bridging.problems(network.bridge)


def _compare(wanted: Tables, seen: Tables) -> list[str]:
    if not seen:
        return [f"the tables {table()} of nftables are gone"]
    found = [f"{where} is not as it should be" for where, held in sorted(wanted.items()) if _differs(where, held, seen)]
    # One without a hook is reached from none of these, and is what a policy leaves behind that nobody has any more.
    entered = [where for where in _unknown(wanted, seen) if any(one.startswith("hook ") for one in seen[where])]
    return found + [f"{where} should not be there" for where in entered]


def _unknown(wanted: Tables, seen: Tables) -> list[str]:
    return sorted(set(seen) - set(wanted))


def _differs(where: str, held: frozenset[str], seen: Tables) -> bool:
    there = seen.get(where, frozenset())
    # A verdict of a container that has gone stays until the next change: its address rests.
    return not held <= there if where in MAPS else held != there


# Changing it ------------------------------------------------------------------------------------------


def apply(network: Network) -> None:
    """Have the rules in force that the rows ask for, as they are at some moment after the call. Raises HostNotReady."""
    bridging.hand_over(network.bridge)
    with _changing():
        rows = _rows()
        _load(ruleset(network, _guarded(rows, network)))
        _note(rows)


def restore(network: Network) -> list[str]:
    """Compare what is in force with the rows, and mend it; what was found. Raises HostNotReady."""
    unseen = bridging.problems(network.bridge)
    bridging.hand_over(network.bridge)
    with _changing():
        rows = _rows()
        text = ruleset(network, _guarded(rows, network))
        wanted, seen = _as_listed(text), _listing()
        found, unknown = _compare(wanted, seen), _unknown(wanted, seen)
        if found or unknown:
            _load(text, [_removal(where, seen[where]) for where in unknown])
        _note(rows)
    return found + unseen


def _removal(where: str, held: frozenset[str]) -> str:
    family, name = where.split()
    kind = next(kind for kind in ("map", "set", "chain") if f"a {kind}" in held)
    return f"delete {kind} {family} {table()} {name}\n"


def stands() -> bool:
    """Whether this host has the deployment's tables. Raises HostNotReady."""
    return shutil.which("nft") is not None and bool(_listing())


def _note(rows: Iterable[Container]) -> None:
    """Say on the rows that what they were read with is in force."""
    for row in rows:
        if row.egress_asked != row.egress_in_force:
            late = Container.objects.filter(pk=row.pk, egress_in_force__lt=row.egress_asked)
            late.update(egress_in_force=row.egress_asked)


def _load(text: str, removals: Iterable[str] = ()) -> None:
    """Replace what the tables hold; ``removals`` are lines that take away what is in them besides.

    The chains that the kernel enters stay where they are: while one is taken away and another put in its place, a
    packet could meet the old one after and the new one before the change, and pass both.
    """
    # Maps lead to chains, and go before them.
    done = run(["nft", "-f", "-"], "".join((_emptied(), *sorted(removals, reverse=True), text)))
    if done.returncode != 0:  # somebody made them into something else
        done = run(["nft", "-f", "-"], _cleared() + text)
    if done.returncode != 0:
        raise HostNotReady(f"The packet filter cannot be set: {done.stderr.strip()[:300]}")


def _emptied() -> str:
    """Lines after which the tables are there and hold no rule and no element."""
    inet, bridge = (f"{family} {table()}" for family in FAMILIES)
    flushed = "".join(f"flush {made.split()[0]} {inet} {name}\n" for name, made in declared().items())
    made = "\n".join(declared().values())
    return f"table {inet} {{\n{made}\n}}\n{flushed}flush table {inet}\nadd table {bridge}\nflush table {bridge}\n"


def _cleared() -> str:
    """Lines after which the tables do not exist; nft cannot delete one that is not there."""
    return "".join(f"add table {family} {table()}\ndelete table {family} {table()}\n" for family in FAMILIES)


QUEUES = ("claim", "pool")
"""Whichever serves first: one may be busy with starts, the other with restores, of which a worker is always left."""


def ask() -> None:
    """Have a worker of each node put in force what the rows say when the caller's transaction has committed."""
    for node in Node.objects.order_by("pk").values_list("pk", flat=True):
        for queue in QUEUES:
            enqueue(queue, "pools.tasks.apply_packet_filter", node=node)


def remove(bridge: str) -> None:
    """Take the deployment's tables away, and the rules that earlier versions kept in iptables. Raises HostNotReady."""
    with _changing():
        cleared = run(["nft", "-f", "-"], _cleared())
        if cleared.returncode != 0:
            raise HostNotReady(f"The packet filter cannot be removed: {cleared.stderr.strip()[:300]}")
        for program, rule in _former_rules(bridge):
            while run([program, "-w", "5", "-D", *rule]).returncode == 0:
                pass


def _former_rules(bridge: str) -> list[tuple[str, list[str]]]:
    comment = ["-m", "comment", "--comment", f"boilerhouse {deployment.deployment_id()}", "-j", "DROP"]
    return [
        ("iptables", ["INPUT", "-i", bridge, "-m", "conntrack", "--ctstate", "NEW", *comment]),
        ("iptables", ["DOCKER-USER", "-i", bridge, "-d", "169.254.0.0/16", *comment]),
        ("ip6tables", ["INPUT", "-i", bridge, *comment]),
    ]


@contextmanager
def _changing() -> Iterator[None]:
    """Rows are read and rules set by one process at a time: what is in force is never older than what was."""
    with (deployment.data_dir() / "firewall.lock").open("w") as file:
        if not file_locks.take(file.fileno(), CHANGING_S):
            raise HostNotReady(f"Another process has been setting rules for {CHANGING_S:.0f} s; it holds {file.name}.")
        yield

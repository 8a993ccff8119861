"""The packet filter for this deployment's containers on this host, computed from rows.

Two nftables tables carry the deployment's id, one for packets and one for frames between ports of the bridge. They only
drop, before and in addition to the rules of the engine and the operator, and are replaced in one kernel transaction. A
container address without a rule can send nothing.
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
from pools import bridging, egress, policy_names, resolvers
from pools.egress import Egress, Entry, Mode
from pools.errors import HostNotReady
from pools.host import machine_lock
from pools.host_programs import run
from pools.models import Container, WorkloadVersion
from pools.nodes import node_of
from pools.packet_rules import FAMILIES, WAYS, Guarded, declared, ruleset, table
from pools.runtime.base import Network

CHANGING_S = 60.0
"""A process that sets rules finishes within this time, or hangs."""
MAPS = tuple(f"inet {way.verdicts}" for way in WAYS)


def _rows() -> list[Container]:
    """Every container of the deployment that has an address; only with what the rules depend on.

    Nodes that share an engine share its bridge and so these tables. An address of another machine's container belongs
    to nobody here.
    """
    rows = Container.objects.filter(address__isnull=False)
    rows = rows.only(
        "address", "node", "version", "network", "egress", "egress_asked", "egress_in_force", "pool__egress"
    )  # fmt: skip
    return list(rows.select_related("pool").order_by("address"))  # every start reads them all


def _guarded(rows: Sequence[Container], network: Network) -> list[Guarded]:
    versions = WorkloadVersion.objects.in_bulk({row.version_id for row in rows})
    own = {pk: tuple(version.spec_json.get("dns") or ()) for pk, version in versions.items()}
    of_node, addresses = resolvers.of_node(), policy_names.open_addresses()
    nothing: Mapping[str, Sequence[str]] = {}
    return [
        Guarded(
            str(row.address),
            _resolved(_allowed(row.pool.policy), addresses.get(row.node_id, nothing)),
            tuple((row.network or {}).get("dns") or own[row.version_id] or of_node),
            row.narrowing and _resolved(row.narrowing, addresses.get(row.node_id, nothing)),
            network.address6(str(row.address)),
        )
        for row in rows
    ]


def _resolved(policy: Egress, addresses: Mapping[str, Sequence[str]]) -> Egress:
    """The policy with addresses instead of names; an unresolved name opens nothing."""
    if not policy.names:
        return policy
    allow: list[Entry] = []
    for entry in policy.allow:
        entries = [replace(entry, network=ip_network(address), name="") for address in addresses.get(entry.name, ())]
        allow += entries if entry.network is None else [entry]
    return replace(policy, allow=tuple(allow))


def _allowed(policy: Egress) -> Egress:
    """The policy, limited to what the deployment still allows."""
    is_open = policy.mode == Mode.OPEN and not settings.BOILERHOUSE_ALLOW_OPEN_NETWORK
    return egress.DEFAULT if is_open else policy


Tables = dict[str, frozenset[str]]
"""Part of the tables → its content; each rule or element as the kernel spells it."""


def _listing() -> Tables:
    """The deployment's tables as listed by this host's kernel."""
    tables: Tables = {}
    for family in FAMILIES:
        result = run(["nft", "-j", "list", "table", family, table()])
        if result.returncode == 0:
            _hold_all(result.stdout, tables)
        elif "No such file" not in result.stderr:
            raise HostNotReady(f"Cannot read the packet filter: {result.stderr.strip()[:300]}")
    return tables


@lru_cache(4)
def _as_listed(text: str) -> Tables:
    """The kernel's spelling of ``text``. The same program lists both, so this code need not know the spelling.

    The rules are loaded into a temporary network namespace, where they affect nothing.
    """
    result = run(["unshare", "-n", "sh", "-c", "nft -f - && nft -j list ruleset"], text)
    if result.returncode != 0:
        raise HostNotReady(f"Cannot test the packet filter: {result.stderr.strip()[:300]}")
    tables: Tables = {}
    _hold_all(result.stdout, tables)
    return tables


def _hold_all(listed: str, tables: Tables) -> None:
    for item in json.loads(listed)["nftables"]:
        _hold(item, tables)


def _hold(item: dict[str, Any], tables: Tables) -> None:
    kind, content = next(iter(item.items()))
    where = f"{content.get('family')} {content.get('chain') or content.get('name')}"
    if kind == "rule":
        position = sum(element.startswith("rule ") for element in tables.get(where, ()))
        added = frozenset({f"rule {position} {json.dumps(content['expr'], sort_keys=True)}"})
    elif kind == "chain":
        added = frozenset(
            {"a chain", *(f"{name} {content[name]}" for name in ("hook", "prio", "policy") if name in content)}
        )
    elif kind in ("set", "map"):
        added = frozenset(json.dumps(element, sort_keys=True) for element in content.get("elem", ())) | {f"a {kind}"}
    else:
        return
    tables[where] = tables.get(where, frozenset()) | added


def differences(network: Network) -> list[str]:
    """Differences between the tables and the rows, as text. Raises HostNotReady."""
    lines = _compare(_as_listed(ruleset(network, _guarded(_rows(), network))), _listing())
    return lines + bridging.problems(network.bridge)


def _compare(expected: Tables, actual: Tables) -> list[str]:
    if not actual:
        return [f"the nftables tables {table()} are missing"]
    differences = [
        f"{where} differs from what it should be"
        for where, content in sorted(expected.items())
        if _differs(where, content, actual)
    ]
    # A chain without a hook that none of these reaches is left over from a policy no longer in use.
    entered = [
        where for where in _unknown(expected, actual) if any(element.startswith("hook ") for element in actual[where])
    ]
    return differences + [f"{where} should not exist" for where in entered]


def _unknown(expected: Tables, actual: Tables) -> list[str]:
    return sorted(set(actual) - set(expected))


def _differs(where: str, content: frozenset[str], actual: Tables) -> bool:
    there = actual.get(where, frozenset())
    # The verdict of a deleted container stays until the next change, because its address is quarantined.
    return not content <= there if where in MAPS else content != there


def apply(network: Network) -> None:
    """Apply the rules for the rows as they are at some time after the call. Raises HostNotReady."""
    bridging.hand_over(network.bridge)
    with _changing():
        rows = _rows()
        _load(ruleset(network, _guarded(rows, network)))
        _note(rows)


def restore(network: Network) -> list[str]:
    """Compare the tables with the rows and repair them; returns the differences. Raises HostNotReady."""
    unseen = bridging.hand_over(network.bridge)
    with _changing():
        rows = _rows()
        text = ruleset(network, _guarded(rows, network))
        expected, actual = _as_listed(text), _listing()
        differences, unknown = _compare(expected, actual), _unknown(expected, actual)
        if differences or unknown:
            _load(text, [_removal(where, actual[where]) for where in unknown])
        _note(rows)
    return differences + unseen


def _removal(where: str, content: frozenset[str]) -> str:
    family, name = where.split()
    kind = next(kind for kind in ("map", "set", "chain") if f"a {kind}" in content)
    return f"delete {kind} {family} {table()} {name}\n"


def stands() -> bool:
    """Whether this host has the deployment's tables. Raises HostNotReady."""
    return shutil.which("nft") is not None and bool(_listing())


def _note(rows: Iterable[Container]) -> None:
    """Record in this node's rows that the policies read from them are in force."""
    for row in rows:
        if row.egress_asked != row.egress_in_force and node_of(row).is_here:
            late = Container.objects.filter(pk=row.pk, egress_in_force__lt=row.egress_asked)
            late.update(egress_in_force=row.egress_asked)


def _load(text: str, removals: Iterable[str] = ()) -> None:
    """Replace the content of the tables; ``removals`` are lines that delete everything else in them.

    The base chains stay in place. If one were deleted and recreated, a packet could meet the old one after and the new
    one before the change, and pass both.
    """
    # Maps refer to chains, so delete maps first.
    result = run(["nft", "-f", "-"], "".join((_emptied(), *sorted(removals, reverse=True), text)))
    if result.returncode != 0:  # a previous version made them something else
        result = run(["nft", "-f", "-"], _cleared() + text)
    if result.returncode != 0:
        raise HostNotReady(f"Cannot set the packet filter: {result.stderr.strip()[:300]}")


def _emptied() -> str:
    """Lines that create empty tables, whatever existed before."""
    inet, bridge = (f"{family} {table()}" for family in FAMILIES)
    flushed = "".join(f"flush {declaration.split()[0]} {inet} {name}\n" for name, declaration in declared().items())
    declaration = "\n".join(declared().values())
    return (
        f"table {inet} {{\n{declaration}\n}}\n{flushed}flush table {inet}\nadd table {bridge}\nflush table {bridge}\n"
    )


def _cleared() -> str:
    """Lines that delete the tables; nft cannot delete a missing one."""
    return "".join(f"add table {family} {table()}\ndelete table {family} {table()}\n" for family in FAMILIES)


QUEUES = ("claim", "pool")
"""The first queue that serves it: one may be busy with starts, the other with restores, which always leave a worker
free."""


def ask() -> None:
    """Have a worker of each node apply the rows after the caller's transaction has committed."""
    for node in Node.objects.order_by("pk").values_list("pk", flat=True):
        for queue in QUEUES:
            enqueue(queue, "pools.tasks.apply_packet_filter", node=node)


def remove(bridge: str) -> None:
    """Delete the deployment's tables, and iptables rules of earlier versions. Raises HostNotReady."""
    with _changing():
        cleared = run(["nft", "-f", "-"], _cleared())
        if cleared.returncode != 0:
            raise HostNotReady(f"Cannot remove the packet filter: {cleared.stderr.strip()[:300]}")
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
    """One process at a time reads rows and sets rules, so newer rules are never replaced by older ones."""
    with (deployment.data_dir() / "firewall.lock").open("w") as file:
        if not file_locks.take(file.fileno(), CHANGING_S):
            raise HostNotReady(
                f"Another process has been changing the packet filter for {CHANGING_S:.0f} s; it holds {file.name}."
            )
        with machine_lock.lock("firewall", CHANGING_S):
            yield

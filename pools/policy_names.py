"""Names in network policies: their current addresses, resolved repeatedly with the node's resolvers.

A name opens only public addresses, whatever it resolves to. Its addresses stay open for a while after an answer without
them, so names that rotate through many addresses work, and so do existing connections.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

import dns.exception
import dns.resolver
from django.conf import settings
from django.db.models import QuerySet

from boilerhouse.core import clock
from boilerhouse.core.deployment import node_id
from pools import resolvers
from pools.egress import Egress, is_public
from pools.models import Container, Pool, ResolvedName

KEEP = timedelta(minutes=10)
"""How long an address stays open after the last answer that contained it."""
SOONEST_S, LATEST_S = 5, 60
"""The limits between which a name is resolved again when its answer expires."""
AGAIN_S = 10
"""The interval after an answer without addresses."""
PATIENCE_S = 3.0
MAX_ADDRESSES = 32
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Answer:
    addresses: tuple[str, ...]
    ttl_s: int
    error: str = ""


def ask(name: str) -> Answer:
    """Resolve a name with the node's resolvers; the answer includes any problem as text.

    IPv6 addresses are included if containers have IPv6; a name may have either kind.
    """
    kinds = {"A": "IPv4", "AAAA": "IPv6"} if settings.BOILERHOUSE_IPV6_SUBNET else {"A": "IPv4"}
    answers = [_ask(name, kind) for kind in kinds]
    addresses = tuple(address for answer in answers for address in answer.addresses)
    errors = dict.fromkeys(answer.error for answer in answers if answer.error)
    if not addresses and not errors:
        errors = {f"The name has no {' and no '.join(kinds.values())} address.": None}
    usable = [answer for answer in answers if answer.addresses] or answers
    return Answer(addresses, min(usable_answer.ttl_s for usable_answer in usable), " ".join(errors))


def _ask(name: str, kind: str) -> Answer:
    try:
        records = _resolver().resolve(f"{name}.", kind, lifetime=PATIENCE_S)
    except dns.resolver.NXDOMAIN:
        return Answer((), AGAIN_S, "No such name.")
    except dns.resolver.NoAnswer:
        return Answer((), AGAIN_S)
    except dns.exception.DNSException as error:
        return Answer((), AGAIN_S, f"The resolvers did not answer ({type(error).__name__}).")
    addresses = sorted(str(item) for item in records)
    public = tuple(item for item in addresses if is_public(ipaddress.ip_network(item)))[:MAX_ADDRESSES]
    closed = [item for item in addresses if item not in public]
    words = f"Names open only public addresses; {', '.join(closed[:3])} is not public." if closed else ""
    return Answer(public, records.rrset.ttl if records.rrset is not None else AGAIN_S, words)


def _resolver() -> dns.resolver.Resolver:
    named = resolvers.set_by_deployment()
    if not named:
        return dns.resolver.Resolver()
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = list(named)
    return resolver


def learn(names: Collection[str]) -> None:
    """Resolve each name that has no answer on this node yet."""
    if not names:  # as for most policies; this is on the path of every start
        return
    stored = set(_rows().filter(name__in=names).values_list("name", flat=True))
    _ask_all(set(names) - stored)


def refresh() -> bool:
    """Resolve names that are due and delete those that no policy uses; returns whether any address changed."""
    names, before = wanted_names(), _open(_rows())
    _rows().exclude(name__in=names).delete()
    due = _rows().filter(next_at__lte=clock.now()).values_list("name", flat=True)
    stored = set(_rows().values_list("name", flat=True))
    _ask_all({*due, *(names - stored)})
    return _open(_rows()) != before


def is_due() -> bool:
    """Whether ``refresh`` would resolve or delete anything, on any node."""
    return ResolvedName.objects.filter(next_at__lte=clock.now()).exists()


def wanted_names() -> set[str]:
    """Names in the policies of pools and tenants with containers on this node."""
    rows = Container.objects.here()
    pools = Pool.objects.filter(pk__in=rows.values("pool_id"), egress__isnull=False).values_list("egress", flat=True)
    tenants = rows.filter(egress__isnull=False).values_list("egress", flat=True)
    policies = [policy for policy in (*pools, *tenants) if policy is not None]
    return {name for policy in policies for name in Egress.from_json(policy).names}


def open_addresses() -> dict[str, dict[str, list[str]]]:
    """For each node, the addresses that each name opens there now."""
    rows = defaultdict[str, list[ResolvedName]](list)
    for row in ResolvedName.objects.order_by("name"):
        rows[row.node_id].append(row)
    return {node: _open(of_node) for node, of_node in rows.items()}


def current(names: Collection[str]) -> dict[str, list[str]]:
    """The addresses of the last answer that had any."""
    result: dict[str, list[str]] = {}
    if not names:
        return result
    for row in _rows().filter(name__in=names):
        newest = max(row.addresses.values(), default="")
        result[row.name] = sorted(address for address, at in row.addresses.items() if at == newest)
    return result


@dataclass(frozen=True, slots=True)
class Known:
    """The addresses of a policy's name on a node, and the problem of the last answer."""

    name: str
    addresses: list[str]
    problem: str


def known(names: Collection[str]) -> list[Known]:
    """The answers for these names; none for a name that no container has needed yet."""
    if not names:
        return []
    rows = ResolvedName.objects.filter(name__in=names).order_by("name", "node_id")
    opened = _open(rows)
    return [Known(row.name, opened[row.name], row.error) for row in rows]


def _rows() -> QuerySet[ResolvedName]:
    return ResolvedName.objects.filter(node_id=node_id()).order_by("name")


def _open(rows: Iterable[ResolvedName]) -> dict[str, list[str]]:
    oldest = (clock.now() - KEEP).isoformat()
    return {row.name: sorted(address for address, at in row.addresses.items() if at >= oldest) for row in rows}


def _ask_all(names: Collection[str]) -> None:
    if not names:
        return
    ordered = sorted(names)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(ask, ordered))
    for name, answer in zip(ordered, answers, strict=True):
        _keep(name, answer)


def _keep(name: str, answer: Answer) -> None:
    now = clock.now()
    row = _rows().filter(name=name).first()
    addresses = _merged(row.addresses if row else {}, answer.addresses, now)
    again = now + timedelta(seconds=min(max(answer.ttl_s, SOONEST_S), LATEST_S))
    values = {"addresses": addresses, "error": answer.error, "next_at": again}
    ResolvedName.objects.update_or_create(node_id=node_id(), name=name, defaults=values)


def _merged(before: dict[str, str], answered: Iterable[str], now: datetime) -> dict[str, str]:
    """Address → when an answer last contained it; the newest ones, without expired ones."""
    oldest = (now - KEEP).isoformat()
    addresses = {address: at for address, at in before.items() if at >= oldest} | dict.fromkeys(
        answered, now.isoformat()
    )
    newest = sorted(addresses.items(), key=lambda item: item[1], reverse=True)
    return dict(newest[:MAX_ADDRESSES])

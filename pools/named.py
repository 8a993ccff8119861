"""Names in network policies: which addresses each stands for now, asked of the node's resolvers and asked again.

A name opens public addresses only, whatever its owner lets it resolve to. Addresses that a name had stay open for a
while after an answer without them: names that turn through many addresses work, and so do connections that stand.
"""

from __future__ import annotations

import ipaddress
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
"""How long an address stays open after the last answer that had it."""
SOONEST_S, LATEST_S = 5, 60
"""Between these a name is asked again when its answer's time to live is over."""
AGAIN_S = 10
"""After a question that brought no address."""
PATIENCE_S = 3.0
MAX_ADDRESSES = 32
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Answer:
    addresses: tuple[str, ...]
    ttl_s: int
    error: str = ""


def ask(name: str) -> Answer:
    """Ask the node's resolvers for the addresses of a name; what is wrong with the answer is in words.

    Those of IPv6 are asked for where containers have it, and a name may have either.
    """
    kinds = {"A": "IPv4", "AAAA": "IPv6"} if settings.BOILERHOUSE_IPV6_SUBNET else {"A": "IPv4"}
    answers = [_ask(name, kind) for kind in kinds]
    found = tuple(address for answer in answers for address in answer.addresses)
    errors = dict.fromkeys(answer.error for answer in answers if answer.error)
    if not found and not errors:
        errors = {f"The name has no {' and no '.join(kinds.values())} address.": None}
    told = [answer for answer in answers if answer.addresses] or answers
    return Answer(found, min(one.ttl_s for one in told), " ".join(errors))


def _ask(name: str, kind: str) -> Answer:
    try:
        found = _resolver().resolve(f"{name}.", kind, lifetime=PATIENCE_S)
    except dns.resolver.NXDOMAIN:
        return Answer((), AGAIN_S, "No such name.")
    except dns.resolver.NoAnswer:
        return Answer((), AGAIN_S)
    except dns.exception.DNSException as error:
        return Answer((), AGAIN_S, f"The resolvers did not answer ({type(error).__name__}).")
    addresses = sorted(str(one) for one in found)
    public = tuple(one for one in addresses if is_public(ipaddress.ip_network(one)))[:MAX_ADDRESSES]
    closed = [one for one in addresses if one not in public]
    words = f"Names open only public addresses; {', '.join(closed[:3])} is not public." if closed else ""
    return Answer(public, found.rrset.ttl if found.rrset is not None else AGAIN_S, words)


def _resolver() -> dns.resolver.Resolver:
    named = resolvers.set_by_deployment()
    if not named:
        return dns.resolver.Resolver()
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = list(named)
    return resolver


def learn(names: Collection[str]) -> None:
    """Have an answer for each name that was never asked here."""
    known = set(_rows().filter(name__in=names).values_list("name", flat=True))
    _ask_all(set(names) - known)


def refresh() -> bool:
    """Ask again for what is due and forget what no policy names; whether any address came or went."""
    wanted, before = wanted_names(), _open(_rows())
    _rows().exclude(name__in=wanted).delete()
    due = _rows().filter(next_at__lte=clock.now()).values_list("name", flat=True)
    known = set(_rows().values_list("name", flat=True))
    _ask_all({*due, *(wanted - known)})
    return _open(_rows()) != before


def is_due() -> bool:
    """Whether ``refresh`` would ask or forget anything, on any node."""
    return ResolvedName.objects.filter(next_at__lte=clock.now()).exists()


def wanted_names() -> set[str]:
    """What policies name of pools and tenants that have containers on this node."""
    rows = Container.objects.here()
    pools = Pool.objects.filter(pk__in=rows.values("pool_id"), egress__isnull=False).values_list("egress", flat=True)
    tenants = rows.filter(egress__isnull=False).values_list("egress", flat=True)
    policies = [policy for policy in (*pools, *tenants) if policy is not None]
    return {name for policy in policies for name in Egress.from_json(policy).names}


def open_addresses(names: Collection[str] | None = None) -> dict[str, list[str]]:
    """The addresses that each name opens now; of all names where none are given."""
    rows = _rows() if names is None else _rows().filter(name__in=names)
    return _open(rows)


def current(names: Collection[str]) -> dict[str, list[str]]:
    """The addresses of the last answer that had any."""
    found = {}
    for row in _rows().filter(name__in=names):
        newest = max(row.addresses.values(), default="")
        found[row.name] = sorted(address for address, at in row.addresses.items() if at == newest)
    return found


@dataclass(frozen=True, slots=True)
class Known:
    """What a name in a policy stands for on a node, and what is wrong with the last answer."""

    name: str
    addresses: list[str]
    problem: str


def known(names: Collection[str]) -> list[Known]:
    """What is known of these names; nothing of one that no container needed yet."""
    if not names:
        return []
    rows = ResolvedName.objects.filter(name__in=names).order_by("name", "node_id")
    opened = _open(rows)
    return [Known(row.name, opened[row.name], row.error) for row in rows]


def _rows() -> QuerySet[ResolvedName]:
    return ResolvedName.objects.filter(node_id=node_id()).order_by("name")


def _open(rows: QuerySet[ResolvedName]) -> dict[str, list[str]]:
    oldest = (clock.now() - KEEP).isoformat()
    return {row.name: sorted(one for one, at in row.addresses.items() if at >= oldest) for row in rows}


def _ask_all(names: Collection[str]) -> None:
    if not names:
        return
    asked = sorted(names)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(ask, asked))
    for name, answer in zip(asked, answers, strict=True):
        _keep(name, answer)


def _keep(name: str, answer: Answer) -> None:
    now = clock.now()
    row = _rows().filter(name=name).first()
    addresses = _merged(row.addresses if row else {}, answer.addresses, now)
    again = now + timedelta(seconds=min(max(answer.ttl_s, SOONEST_S), LATEST_S))
    values = {"addresses": addresses, "error": answer.error, "next_at": again}
    ResolvedName.objects.update_or_create(node_id=node_id(), name=name, defaults=values)


def _merged(before: dict[str, str], answered: Iterable[str], now: datetime) -> dict[str, str]:
    """Address → when an answer last had it; the newest ones, and none that is too old to be open."""
    oldest = (now - KEEP).isoformat()
    kept = {one: at for one, at in before.items() if at >= oldest} | dict.fromkeys(answered, now.isoformat())
    newest = sorted(kept.items(), key=lambda item: item[1], reverse=True)
    return dict(newest[:MAX_ADDRESSES])

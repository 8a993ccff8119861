"""Which calls each socket lets through, by method, path, parameters and body."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import bodies
from bodies import OURS, Allowed
from heads import Head
from refusing import Refused

MAX_BODY, MAX_CONTEXT = 4 << 20, 512 << 20
"""Bytes of JSON, and of what an image is built from."""
RUNS = rf"(?!{'|'.join(map(re.escape, bodies.NEVER_RUN))}){OURS}"
IMAGE = "[A-Za-z0-9_./:@-]{1,400}"
TAG = "boilerhouse/[a-z0-9._-]{1,100}:[A-Za-z0-9._-]{1,100}"
"""What is built is never called as an image of somebody else."""
NETWORK = bodies.NETWORK.pattern

Rewrite = Callable[[Head, bytes], bytes]
"""The body as the engine gets it. Raises Refused."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the engine's API."""

    method: str
    path: str
    """A pattern, without the version."""
    query: frozenset[str] = frozenset()
    body: Rewrite | None = None
    """None: it has none."""
    is_context: bool = False
    """Whether its body is a tar archive that is passed on as it comes."""
    is_stream: bool = False
    """Whether the connection becomes the command's input and output."""

    @property
    def max_body(self) -> int:
        return MAX_CONTEXT if self.is_context else MAX_BODY if self.body else 0

    @property
    def kind(self) -> str:
        return "application/x-tar" if self.is_context else "application/json"


def _call(method: str, path: str, query: str = "", *, body: Rewrite | None = None) -> Call:
    return Call(method, path, frozenset(query.split()), body)


def _command(head: Head, body: bytes) -> bytes:
    return bodies.command(body)


def _beginning(head: Head, body: bytes) -> bytes:
    return bodies.beginning(body)


def _network(head: Head, body: bytes) -> bytes:
    return bodies.network(body)


def _login(head: Head, body: bytes) -> bytes:
    return bodies.login(body)


def _container(allowed: Allowed, head: Head, body: bytes) -> bytes:
    name = head.query.get("name", "")
    if not re.fullmatch(OURS, name):
        raise Refused("its name does not begin with bh-")
    return bodies.container(name, body, allowed)


LOOK = (
    _call("GET", "/info"),
    _call("GET", "/events", "since until filters"),
    _call("GET", "/containers/json", "limit all size trunc_cmd since before filters"),
    _call("GET", "/images/json", "only_ids all filters filter"),
    _call("GET", "/networks", "filters"),
    _call("GET", f"/containers/{OURS}/json", "size"),
    _call("GET", f"/containers/{OURS}/logs", "stdout stderr timestamps follow tail since until"),
    _call("GET", f"/images/{IMAGE}/json"),
    _call("GET", f"/networks/{NETWORK}", "verbose scope"),
    _call("POST", f"/containers/{RUNS}/exec", body=_command),
    replace(_call("POST", "/exec/[0-9a-f]{64}/start", body=_beginning), is_stream=True),
    _call("POST", "/exec/[0-9a-f]{64}/resize", "h w"),
    _call("GET", "/exec/[0-9a-f]{64}/json"),
)


def _make(allowed: Allowed) -> tuple[Call, ...]:
    return (
        _call("GET", f"/distribution/{IMAGE}/json"),
        _call("POST", "/auth", body=_login),
        _call("POST", "/containers/create", "name platform", body=partial(_container, allowed)),
        _call("POST", "/images/create", "fromImage tag platform"),
        replace(_call("POST", "/build", "t q nocache rm forcerm pull dockerfile"), is_context=True),
        _call("POST", "/networks/create", body=_network),
        _call("POST", f"/containers/{RUNS}/start"),
        _call("POST", f"/containers/{RUNS}/(stop|kill|pause|unpause)", "t signal"),
        # Of an image, never of what has run.
        _call("GET", "/containers/bh-accounts-[0-9a-f]+/archive", "path"),
        _call("HEAD", "/containers/bh-accounts-[0-9a-f]+/archive", "path"),
        _call("DELETE", f"/containers/{OURS}", "v link force"),
        _call("DELETE", f"/networks/{NETWORK}"),
    )


def of_sockets(allowed: Allowed) -> Mapping[str, tuple[Call, ...]]:
    """The calls of each socket, by its name."""
    return {"web": LOOK, "worker": (*LOOK, *_make(allowed))}


BY_LABEL = ("/events", "/containers/json")
"""Where what is ours is asked for by its labels."""
VERSION = Call("GET", "/version")


def of(head: Head, calls: Iterable[Call]) -> Call:
    """The call that a head makes. Raises Refused where there is none such, or its parameters are not its own."""
    if (head.method, head.path) == ("GET", "/version"):
        found: Call | None = VERSION  # the one before both sides know which version they speak
    else:
        found = next((one for one in calls if _is(one, head)), None)
    if found is None:
        raise Refused("this socket has no such call")
    if foreign := head.query.keys() - found.query:
        raise Refused(f"Boilerhouse does not ask with {', '.join(sorted(foreign))[:60]!r}")
    if head.length > found.max_body:
        raise Refused(f"its body has {head.length} bytes, and {found.max_body} are the most")
    if found.is_context and not re.fullmatch(TAG, head.query.get("t", "")):
        raise Refused("it would not build an image of boilerhouse/")
    if found.path in BY_LABEL and not bodies.is_about_ours(head.query.get("filters", "{}")):
        raise Refused("it does not ask by a label of ours")
    return found


def _is(call: Call, head: Head) -> bool:
    path = re.sub(r"\A/v1\.[0-9]{2,3}(?=/)", "", head.path, count=1)
    versioned = path != head.path or call is VERSION
    return versioned and call.method == head.method and re.fullmatch(call.path, path) is not None

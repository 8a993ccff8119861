"""The head of a request: read strictly, and written anew.

What the engine gets is made of what was understood here, never of the bytes that came. So nothing can mean one thing to
this parser and another to the engine's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes, urlencode

from refusing import Refused

_LINES = re.compile(rb"(?:[\x20-\x7e]+\r\n)+\r\n")
_FIRST = re.compile(r"([A-Z]{3,6}) (/[A-Za-z0-9_./:@-]*)(?:\?([!-~]*))? HTTP/1\.1")
_HEADER = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ ]*([!-~](?:[ -~]*[!-~])?)?[ ]*")
_LENGTH = re.compile(r"[0-9]{1,12}")
_CREDENTIALS = re.compile(r"[A-Za-z0-9+/=_-]*")
_KEPT = ("x-registry-auth", "x-registry-config")
"""Logins at registries, in base64. Every other header of a client is left out."""


@dataclass(frozen=True, slots=True)
class Head:
    """A request as it was understood."""

    method: str
    path: str
    query: Mapping[str, str]
    length: int
    """Of the body in bytes."""
    credentials: Mapping[str, str]


def parse(head: bytes) -> Head:
    """Read all up to and with the empty line. Raises Refused for whatever could be read in two ways."""
    if not _LINES.fullmatch(head):
        raise Refused("its head has other characters or ends of lines than HTTP has")
    first, *lines = head.decode("ascii").split("\r\n")[:-2]
    asked = _FIRST.fullmatch(first)
    if asked is None:
        raise Refused("its first line is no request of HTTP/1.1")
    method, path, query = asked[1], asked[2], asked[3] or ""
    if ".." in path or "//" in path:
        raise Refused("its path is not a plain one")
    headers: dict[str, str] = {}
    for line in lines:
        found = _HEADER.fullmatch(line)
        if found is None:
            raise Refused("a header is not written as HTTP writes it")
        name = found[1].lower()
        if name in headers:
            raise Refused(f"the header {name} comes twice")
        headers[name] = found[2] or ""
    if "transfer-encoding" in headers or "trailer" in headers:
        raise Refused("its body has no length")
    if not _LENGTH.fullmatch(length := headers.get("content-length", "0")):
        raise Refused("the length of its body is no number")
    credentials = {name: headers[name] for name in _KEPT if name in headers}
    if not all(map(_CREDENTIALS.fullmatch, credentials.values())):
        raise Refused("a login is not in base64")
    return Head(method, path, _query(query), int(length), credentials)


def _query(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, text.split("&")):
        name, _, value = (_decoded(one) for one in part.partition("="))
        if name in found:
            raise Refused("a parameter comes twice")
        found[name] = value
    return found


def _decoded(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise Refused("a parameter is not written as URLs write it")
    try:
        value = unquote_to_bytes(text.replace("+", " ")).decode()
    except UnicodeDecodeError:
        raise Refused("a parameter is not UTF-8") from None
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise Refused("a parameter has control characters")
    return value


def written(head: Head, length: int, kind: str, *, upgrade: bool) -> bytes:
    """The head that the engine gets: for one request, after which it reads no other."""
    query = f"?{urlencode(head.query)}" if head.query else ""
    lines = [f"{head.method} {head.path}{query} HTTP/1.1", "Host: docker"]
    if length or head.method == "POST":
        lines.append(f"Content-Length: {length}")
    if length:
        lines.append(f"Content-Type: {kind}")
    lines += [f"{name}: {value}" for name, value in head.credentials.items()]
    lines += ["Connection: Upgrade", "Upgrade: tcp"] if upgrade else ["Connection: close"]
    return "\r\n".join([*lines, "", ""]).encode("ascii")

"""Host names of the gateway: ``<port>-<host label>.<domain>``."""

from __future__ import annotations

import re
import secrets
import string
from typing import NamedTuple

LABEL_LENGTH = 20
_ALPHABET = string.ascii_lowercase + string.digits
_FIRST_PART = re.compile(rf"([1-9][0-9]{{0,4}})-([a-z0-9]{{{LABEL_LENGTH}}})", re.ASCII)
MAX_PORT = 65_535


class Place(NamedTuple):
    """A port of a tenant's container, as its host name says."""

    port: int
    label: str


def new_label() -> str:
    """A host label that nobody can guess (103 bits)."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(LABEL_LENGTH))


def place_of(host: str, domain: str) -> Place | None:
    """The place that a host name (lower case, without a port) leads to; None if it is not one of the gateway's."""
    first, _, rest = host.partition(".")
    match = _FIRST_PART.fullmatch(first)
    if match is None or rest != domain or int(match[1]) > MAX_PORT:
        return None
    return Place(int(match[1]), match[2])


def name_of(place: Place, domain: str) -> str:
    return f"{place.port}-{place.label}.{domain}"

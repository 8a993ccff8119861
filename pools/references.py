"""Image names: registry, repository, tag and digest, in the grammar that engines and registries share.

docker-py's ``parse_repository_tag`` treats a tag before a digest as part of the repository, so it is not used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

DEFAULT_REGISTRY = "docker.io"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = rf"(?:{_HOST}(?::[0-9]+)?/)?{_PART}(?:/{_PART})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}"
PATTERN = rf"^(?:sha256:[0-9a-f]{{64}}|{_NAME}(?::{_TAG})?(?:@(?:{_DIGEST}))?)$"
"""The pattern of ``parse`` for the API's schema; ``parse`` also limits the length of the name."""
_REFERENCE = re.compile(rf"(?P<name>{_NAME})(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?")
_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}")
MAX_NAME = 255


class InvalidReference(ValueError):
    """This is no name of an image; the words say why."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The name of an image. A local id has neither registry nor repository: it can be used, but not pulled."""

    text: str
    """The name as written."""
    name: str = ""
    """The name as written, without tag and digest."""
    registry: str = ""
    """The host, with its port if given; ``docker.io`` if the name has none."""
    repository: str = ""
    """The path in the registry: ``library/busybox``."""
    tag: str = ""
    digest: str = ""

    @property
    def is_id(self) -> bool:
        return not self.name

    @property
    def version(self) -> str:
        """The digest if the name has one, otherwise the tag, otherwise ``latest``: what the registry is asked for."""
        return self.digest or self.tag or "latest"


def parse(text: str) -> Reference:
    """The parts of an image's name. Raises InvalidReference."""
    if _ID.fullmatch(text):
        return Reference(text)
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise InvalidReference(_why(text))
    name = match["name"]
    if len(name) > MAX_NAME:
        raise InvalidReference(f"The name before the tag is longer than {MAX_NAME} characters.")
    host, slash, rest = name.partition("/")
    if slash and (host == "localhost" or set(host) & set(".:[") or host.lower() != host):
        registry, repository = host, rest
    else:
        registry, repository = DEFAULT_REGISTRY, name if slash else f"library/{name}"
    return Reference(text, name, registry, repository, match["tag"] or "", match["digest"] or "")


def at_engine(text: str) -> str:
    """The name for the engine's request for a local image. Next to a digest, a tag has no meaning, and some engines
    refuse both.

    Text that is not a reference stays unchanged; the engine reports the error.
    """
    match = _REFERENCE.fullmatch(text)
    return f"{match['name']}@{match['digest']}" if match and match["digest"] else text


def _why(text: str) -> str:
    form = "Write [registry[:port]/]repository[:tag][@sha256:…]"
    if "://" in text:
        return f"{form}, without a scheme such as https://."
    if "@" in text and not re.search(rf"@(?:{_DIGEST})$", text):
        return f"{form}; after @ comes sha256: with 64 lower-case hexadecimal digits."
    if _REFERENCE.fullmatch(text.lower()):
        return f"{form}; a repository must be in lower case."
    return f"{form}."

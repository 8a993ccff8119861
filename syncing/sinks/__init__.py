"""The kinds of sink. A new one is a class (see ``base``), named here, and its fields in ``syncing.api.sinks``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from syncing.sinks.base import CLAIM_DEADLINE_S, RUN_DEADLINE_S, Sink
from syncing.sinks.local import LocalSink
from syncing.sinks.s3 import S3Sink
from syncing.sinks.webdav import WebDavSink

__all__ = [
    "CLAIM_DEADLINE_S",
    "KINDS",
    "RUN_DEADLINE_S",
    "LocalSink",
    "S3Sink",
    "Sink",
    "WebDavSink",
    "prefix",
    "resolve",
]

KINDS: dict[str, type[S3Sink] | type[LocalSink] | type[WebDavSink]] = {
    kind.type: kind for kind in (S3Sink, LocalSink, WebDavSink)
}


def resolve(sink: Mapping[str, Any], secrets: Mapping[str, Any]) -> Sink:
    """The sink that a spec describes, with its secrets."""
    return KINDS[sink["type"]].from_spec(sink, secrets)


def prefix(sink: Mapping[str, Any]) -> str:
    """What a spec's sink itself puts before every sink path: a location template."""
    if sink["type"] == LocalSink.type:
        return LocalSink.prefix(sink)
    return str(sink.get("prefix") or "")

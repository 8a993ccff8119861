"""The kinds of sink. A new one is one class (see ``base``), named here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from syncing.sinks.azure import AzureBlobSink
from syncing.sinks.base import CLAIM_DEADLINE_S, RUN_DEADLINE_S, FormField, Sink
from syncing.sinks.gcs import GcsSink
from syncing.sinks.local import LocalSink
from syncing.sinks.s3 import S3Sink
from syncing.sinks.sftp import SftpSink
from syncing.sinks.webdav import WebDavSink

__all__ = [
    "CLAIM_DEADLINE_S",
    "KINDS",
    "RUN_DEADLINE_S",
    "AzureBlobSink",
    "FormField",
    "GcsSink",
    "LocalSink",
    "S3Sink",
    "SftpSink",
    "Sink",
    "WebDavSink",
    "prefix",
    "resolve",
    "warm",
]

_KINDS: tuple[type[Sink], ...] = (S3Sink, GcsSink, AzureBlobSink, WebDavSink, SftpSink, LocalSink)
KINDS: dict[str, type[Sink]] = {kind.type: kind for kind in _KINDS}
"""By ``sink.type``, in the form's order."""


def resolve(sink: Mapping[str, Any], secrets: Mapping[str, Any]) -> Sink:
    """The sink of a spec, with its secrets."""
    return KINDS[sink["type"]].from_spec(sink, secrets)


def prefix(sink: Mapping[str, Any]) -> str:
    """The prefix that a spec's sink itself adds to every sink path: a location template."""
    return KINDS.get(sink["type"], Sink).prefix_of(sink)


def warm() -> None:
    """Prepare what the first query of any kind would otherwise wait for."""
    for kind in KINDS.values():
        kind.warm()

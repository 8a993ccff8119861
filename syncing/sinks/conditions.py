"""What a sink's conditional writes are good for: each answer is tried, because some servers ignore a condition."""

from __future__ import annotations

import uuid

from syncing.errors import RemoteChanged, SinkRefused, SyncFailed
from syncing.locations import MARKER_ROOT
from syncing.sinks.base import Sink


def are_honoured(sink: Sink, stale_tag: str) -> bool:
    """Whether the sink refuses a write under a condition that does not hold; no object has the tag ``stale_tag``."""
    key = f"{MARKER_ROOT}/probe-{uuid.uuid4().hex}"
    try:
        tag = sink.put_if(key, b"one", "")
        for stale in ("", stale_tag):
            try:
                sink.put_if(key, b"two", stale)
            except RemoteChanged:
                continue
            return False
        return sink.put_if(key, b"three", tag) != tag
    except SyncFailed:
        return False
    finally:
        sink.delete(key)


def create(sink: Sink, key: str, content: bytes) -> bool:
    """``Sink.create`` by conditional writes, where the sink has them."""
    try:
        sink.put_if(key, content, "")
    except RemoteChanged:
        return True
    except SinkRefused:  # the condition itself
        sink.put(key, content)
        return False
    try:
        sink.put_if(key, content + b"\n", "")
    except RemoteChanged:
        return True
    return False  # it ignores the condition

"""What actions on many objects share: the selected ids, and results that the session keeps for their page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from django.contrib.sessions.backends.base import SessionBase

from boilerhouse.core.ids import uuid7

KEPT = 3
"""How many results of one kind of action a session keeps."""


def ids(texts: Iterable[str]) -> list[UUID]:
    """The texts that are ids; the others are ignored."""
    valid = []
    for text in texts:
        try:
            valid.append(UUID(text))
        except ValueError:
            continue
    return valid


def keep(session: SessionBase, kind: str, outcome: Sequence[Any]) -> UUID:
    """Store the outcome, whose items are lists of texts, in the session of who asked. Returns its id."""
    key = uuid7()
    session[kind] = [*session.get(kind, []), [str(key), list(outcome)]][-KEPT:]
    return key


def stored_results(session: SessionBase, kind: str, key: UUID) -> list[Any] | None:
    """The outcome; None if this session has no such action, or has newer ones."""
    outcome: list[Any] | None = dict(session.get(kind, [])).get(str(key))
    return outcome

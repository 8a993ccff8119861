"""``Idempotency-Key``: a repeated request gets the response of the first.

Keys and bodies are stored as HMACs and responses encrypted, because both may contain secrets. Temporary errors (409,
429, 5xx …) are not stored, so a retry runs again. Of a response that is too long, only its existence is stored: the
request never runs twice, and a retry gets an error.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from django.conf import settings
from django.db import IntegrityError, transaction
from django.http import HttpResponse
from django.utils import timezone

from boilerhouse.core.encryption import Ciphertext, cipher
from boilerhouse.core.errors import Conflict, FieldError, Invalid
from boilerhouse.core.events import afterwards
from boilerhouse.core.models import IdempotencyRecord
from boilerhouse.process import ownership, processes
from boilerhouse.process.outage import DATABASE_LOST
from boilerhouse.web.response_bytes import RECORD_BYTES, RETENTION, Share, ledger

log = structlog.get_logger(__name__)

LASTING = frozenset({400, 415, 422})
REPLAYED = "Idempotency-Replayed"
_VALID = re.compile(r"^[!-~]{1,255}\Z")


class KeyInFlight(Conflict):
    """A request with this Idempotency-Key is still being worked on."""

    code = "idempotency_key_in_flight"
    retry_after = 1


class AnswerNotKept(Conflict):
    """The request was done, and its answer was too long to be kept for this Idempotency-Key."""

    code = "answer_not_kept"


@dataclass(frozen=True, slots=True)
class Record:
    """A request whose response will be stored."""

    id: str
    shares: tuple[Share, ...]
    """The quotas that it counts against."""


class Replay(Exception):
    """The response is known already."""

    def __init__(self, response: HttpResponse) -> None:
        self.response = response


def _digest(*parts: bytes) -> str:
    lengths = b",".join(str(len(part)).encode() for part in parts)
    return hmac.new(settings.BOILERHOUSE_KEY_PEPPER.encode(), b"\0".join((lengths, *parts)), hashlib.sha256).hexdigest()


def begin(request: Any, shares: tuple[Share, ...], still_holds: Callable[[Any], bool]) -> Record | None:
    """Reserve the request's key for this process and return its record, None without a key.

    Raises Replay with the stored response, AnswerNotKept, KeyInFlight, and Invalid for a malformed key or one that was
    used with another body. ``still_holds`` decides whether a stored 2xx body is still true; if not, the request runs
    again.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not _VALID.match(key):
        raise Invalid(
            FieldError("", "Idempotency-Key: must be 1 to 255 printable ASCII characters without spaces.", "invalid")
        )
    path = request.path_info.encode()
    record = _digest(b"key", request.auth.pk.encode(), request.method.encode(), path, key.encode())
    body = _digest(b"body", request.META.get("QUERY_STRING", "").encode(), request._request.body)
    me, fresh = processes.current(), Record(record, shares)
    ledger.make_room(shares)
    try:
        with _not_left_owned(record), transaction.atomic():
            IdempotencyRecord.objects.create(id=record, body=body, owner=me, size=RECORD_BYTES, **_columns(shares))
        ledger.add(shares, RECORD_BYTES)
        return fresh
    except IntegrityError:
        stored = IdempotencyRecord.objects.filter(pk=record).first()
    if stored is None:
        return begin(request, shares, still_holds)  # it was deleted in between
    is_old = stored.created_at < timezone.now() - RETENTION
    if stored.body != body and not is_old:
        detail = "This Idempotency-Key was used with a different body."
        raise Invalid(FieldError("", detail, "idempotency_key_reused"), detail=detail)
    if stored.answer is not None and not is_old:
        if stored.answer["content"] is None:
            raise AnswerNotKept
        status, headers, content = stored.answer["status"], stored.answer["headers"], stored.answer["content"]
        response = HttpResponse(content, status=status, headers={**headers, REPLAYED: "true"})
        if status >= 400 or still_holds(response):
            raise Replay(response)
    elif stored.owner is not None and stored.owner in processes.living():
        raise KeyInFlight
    rows = IdempotencyRecord.objects.filter(pk=record, owner=stored.owner, created_at=stored.created_at)
    if not rows.update(owner=me, answer=None, body=body, size=RECORD_BYTES, created_at=timezone.now()):
        raise KeyInFlight  # another retry was first
    ledger.add(shares, RECORD_BYTES - (0 if is_old else stored.size))
    return fresh


@contextmanager
def _not_left_owned(record: str) -> Iterator[None]:
    """If the database is lost within the block, the key is soon free for a retry instead of in flight forever."""
    try:
        yield
    except DATABASE_LOST:
        ownership.give_up((IdempotencyRecord, record))
        raise


def end(record: Record, response: HttpResponse) -> None:
    """Store the response if a retry should get it, in the caller's transaction; otherwise delete the record."""
    if response.status_code >= 300 and response.status_code not in LASTING:
        abandon(record)
        return
    sealed = _sealed(response)
    rows = IdempotencyRecord.objects.filter(pk=record.id)
    with _not_left_owned(record.id):
        is_there = rows.update(answer=sealed, owner=None, size=RECORD_BYTES + len(sealed))
    if is_there:
        afterwards(partial(ledger.add, record.shares, len(sealed)))


def amend(record: Record, response: HttpResponse) -> None:
    """Replace the stored response by one that says more about the same."""
    sealed = _sealed(response)
    rows = IdempotencyRecord.objects.filter(pk=record.id, owner=None)
    with _not_left_owned(record.id):
        rows.update(answer=sealed, size=RECORD_BYTES + len(sealed))


def abandon(record: Record) -> None:
    """Delete the record of a failed request, so that a retry runs.

    A record with a response stays: its request was committed, although this process did not learn of it.
    """
    with _not_left_owned(record.id):
        was_there = IdempotencyRecord.objects.filter(pk=record.id).exclude(owner=None).delete()[0]
    if was_there:
        ledger.add(record.shares, -RECORD_BYTES)


def settle(record: Record, response: HttpResponse) -> None:
    """``end`` for a request whose work is over. Without the database, the response stays true and is not stored."""
    try:
        end(record, response)
    except DATABASE_LOST as error:
        log.error("response not stored", status=response.status_code, error=type(error).__name__)


def let_go(record: Record) -> None:
    """The database is lost or busy: free the key for a retry as soon as it answers, without waiting for it again."""
    ownership.give_up((IdempotencyRecord, record.id))


def _sealed(response: HttpResponse) -> Ciphertext:
    """As it is stored in the database, so that its length there is known whatever its characters are."""
    is_kept = len(response.content) <= settings.BOILERHOUSE_KEPT_ANSWER_MAX_BYTES
    headers = {name: value for name, value in response.items() if name in ("Content-Type", "ETag")}
    content = response.content.decode() if is_kept else None
    answer = {"status": response.status_code, "headers": headers, "content": content}
    return Ciphertext(cipher().encrypt(json.dumps(answer).encode()))


def _columns(shares: tuple[Share, ...]) -> dict[str, Any]:
    return {name: value for share in shares for name, value in share.columns.items()}


def forget_old() -> int:
    """Delete records past their retention. Returns how many went."""
    return IdempotencyRecord.objects.filter(created_at__lt=timezone.now() - RETENTION).delete()[0]

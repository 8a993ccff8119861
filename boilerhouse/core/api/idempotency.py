"""``Idempotency-Key``: the second request of a kind gets the answer of the first.

Keys and bodies are kept as HMACs and answers encrypted, for both may hold secrets. What could pass on another try
(409, 429, 5xx …) is not kept: the retry is worked on.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.http import HttpResponse
from django.utils import timezone

from boilerhouse.core import processes
from boilerhouse.core.errors import Conflict, FieldError, Invalid
from boilerhouse.core.models import IdempotencyRecord

RETENTION = timedelta(hours=24)
LASTING = frozenset({400, 415, 422})
REPLAYED = "Idempotency-Replayed"
_VALID = re.compile(r"^[!-~]{1,255}\Z")


class KeyInFlight(Conflict):
    """A request with this Idempotency-Key is still being worked on."""

    code = "idempotency_key_in_flight"
    retry_after = 1


class Replay(Exception):
    """The answer is already known."""

    def __init__(self, response: HttpResponse) -> None:
        self.response = response


def _digest(*parts: bytes) -> str:
    lengths = b",".join(str(len(part)).encode() for part in parts)
    return hmac.new(settings.BOILERHOUSE_KEY_PEPPER.encode(), b"\0".join((lengths, *parts)), hashlib.sha256).hexdigest()


def begin(request: Any, still_holds: Callable[[Any], bool]) -> str | None:
    """Take the request's key for this process and return its record's id, None without one.

    Raises Replay with the kept answer, KeyInFlight, and Invalid for a bad key or one that came with another body.
    ``still_holds`` says of a kept 2xx body whether it is still true; if not, the request is worked on anew.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not _VALID.match(key):
        raise Invalid(FieldError("", "Idempotency-Key: 1 to 255 printable ASCII characters without spaces.", "invalid"))
    path = request.path_info.encode()
    record = _digest(b"key", request.auth.pk.encode(), request.method.encode(), path, key.encode())
    body = _digest(b"body", request.META.get("QUERY_STRING", "").encode(), request._request.body)
    me = processes.current()
    try:
        with transaction.atomic():
            IdempotencyRecord.objects.create(id=record, body=body, owner=me)
        return record
    except IntegrityError:
        kept = IdempotencyRecord.objects.filter(pk=record).first()
    if kept is None:
        return begin(request, still_holds)  # it was forgotten in between
    is_old = kept.created_at < timezone.now() - RETENTION
    if kept.body != body and not is_old:
        detail = "This Idempotency-Key came with another body before."
        raise Invalid(FieldError("", detail, "idempotency_key_reused"), detail=detail)
    if kept.answer is not None and not is_old:
        status, headers, content = kept.answer["status"], kept.answer["headers"], kept.answer["content"]
        response = HttpResponse(content, status=status, headers={**headers, REPLAYED: "true"})
        if status >= 400 or still_holds(response):
            raise Replay(response)
    elif kept.owner is not None and kept.owner in processes.living():
        raise KeyInFlight
    rows = IdempotencyRecord.objects.filter(pk=record, owner=kept.owner, created_at=kept.created_at)
    if not rows.update(owner=me, answer=None, body=body, created_at=timezone.now()):
        raise KeyInFlight  # another retry was first
    return record


def end(record: str, response: HttpResponse) -> None:
    """Keep the answer if a retry would get it again; forget the record if not."""
    rows = IdempotencyRecord.objects.filter(pk=record)
    if response.status_code < 300 or response.status_code in LASTING:
        headers = {name: value for name, value in response.items() if name in ("Content-Type", "ETag")}
        answer = {"status": response.status_code, "headers": headers, "content": response.content.decode()}
        rows.update(answer=answer, owner=None)
    else:
        rows.delete()


def abandon(record: str) -> None:
    """Forget that the request was ever made: it broke, and a retry is worked on."""
    IdempotencyRecord.objects.filter(pk=record).delete()


def forget_old() -> int:
    """Delete records past their retention. Returns how many went."""
    return IdempotencyRecord.objects.filter(created_at__lt=timezone.now() - RETENTION).delete()[0]

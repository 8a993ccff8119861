"""The audit log: one row per change, in the transaction of the change."""

from __future__ import annotations

import json
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder

from boilerhouse.core import context
from boilerhouse.core.models import AuditEntry

_encoder = DjangoJSONEncoder()


def record(action: str, object_id: object, *, before: Any = None, after: Any = None) -> None:
    """Record that the current actor did ``action`` (``<kind>.<verb>``). The caller leaves secrets out."""
    AuditEntry.objects.create(
        actor=context.actor(),
        request_id=context.request_id(),
        action=action,
        kind=action.partition(".")[0],
        object_id=str(object_id),
        before=_plain(before),
        after=_plain(after),
    )


def changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """``before`` and ``after`` for ``record``, reduced to the fields that differ."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {"before": {n: before.get(n) for n in names}, "after": {n: after.get(n) for n in names}}


def _plain(value: Any) -> Any:
    return None if value is None else json.loads(_encoder.encode(value))

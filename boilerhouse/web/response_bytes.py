"""Limits the database space of stored responses, per tenant, per key and in total.

Each process reads the sizes once a minute for each quota in use, and adds its own changes in between.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import QuerySet, Sum
from django.utils import timezone

from boilerhouse.core.models import IdempotencyRecord
from boilerhouse.process.budgets import TENANT_ROLE, Kind, Use
from boilerhouse.telemetry.instruments import KEPT_ANSWERS_FORGOTTEN

RETENTION = timedelta(hours=24)
RECORD_BYTES = 512
"""The size of a record without its response, including indexes."""
ASK_EVERY_S = 60.0
MAX_SHARES = 10_000


@dataclass(frozen=True, slots=True)
class Share:
    kind: Kind | None
    """None: the total."""
    name: str = ""
    is_tenants: bool = False
    """The quota of a tenant's own keys. Requests of other keys for it are counted separately, and still work when it is
    used up."""

    @property
    def most(self) -> int:
        whose = "" if self.kind is None else f"_PER_{self.kind.name}"
        return int(getattr(settings, f"BOILERHOUSE_KEPT_BYTES{whose}"))

    @property
    def made_room(self) -> int:
        """The size to reach when old records are deleted. Of the total, only a small part is deleted at a time: that is
        many rows."""
        return self.most * 31 // 32 if self.kind is None else self.most * 3 // 4

    @property
    def columns(self) -> dict[str, Any]:
        """The filter or values of its records."""
        if self.kind is Kind.TENANT:
            return {"tenant_id": self.name, "is_tenants": self.is_tenants}
        return {} if self.kind is None else {"key_id": self.name}


ALL = Share(None)


def shares_of(key: Any, about: str) -> tuple[Share, ...]:
    """The quotas of a request. Keys that act for any tenant are counted by tenant, if the request names one."""
    is_tenants = key.role == TENANT_ROLE
    shares = [Share(Kind.TENANT, about, is_tenants)] if about else []
    if is_tenants or not about:
        shares.append(Share(Kind.KEY, str(key.pk)))
    return (*shares, ALL)


class Ledger:
    """Bytes by quota: the last value of the database plus this process's own changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._amounts: OrderedDict[Share, tuple[int, float]] = OrderedDict()

    def used(self, share: Share) -> int:
        with self._lock:
            entry = self._amounts.get(share)
        if entry is not None and time.monotonic() - entry[1] < ASK_EVERY_S:
            return entry[0]
        amount = _stored_amount(share)
        with self._lock:
            self._amounts[share] = (amount, time.monotonic())
            self._amounts.move_to_end(share)
            if len(self._amounts) > MAX_SHARES:
                self._amounts.popitem(last=False)
        return amount

    def add(self, shares: tuple[Share, ...], size: int) -> None:
        with self._lock:
            for share in shares:
                if (entry := self._amounts.get(share)) is not None:
                    self._amounts[share] = (entry[0] + size, entry[1])

    def make_room(self, shares: tuple[Share, ...]) -> None:
        """Make space for one more response in each quota, deleting its oldest ones if necessary."""
        for share in shares:
            if (used := self.used(share)) + RECORD_BYTES > share.most:
                _forget_oldest(share, used)
                with self._lock:
                    self._amounts.pop(share, None)

    def clear(self) -> None:
        with self._lock:
            self._amounts.clear()


ledger = Ledger()


def use_of(tenant_id: str) -> Use:
    """The bytes of responses to the tenant's own keys, and their limit."""
    share = Share(Kind.TENANT, tenant_id, is_tenants=True)
    return Use("bytes of stored answers", _stored_amount(share), share.most, is_bytes=True)


def total() -> int:
    """The bytes of all stored responses."""
    return int(IdempotencyRecord.objects.aggregate(sum=Sum("size"))["sum"] or 0)


def _stored_amount(share: Share) -> int:
    return int(_rows(share).aggregate(sum=Sum("size"))["sum"] or 0)


def _rows(share: Share) -> QuerySet[IdempotencyRecord]:
    return IdempotencyRecord.objects.filter(created_at__gt=timezone.now() - RETENTION, **share.columns)


def _forget_oldest(share: Share, used: int) -> None:
    """Keep requests in progress, and as many of the newest as fit."""
    answered, oldest = _rows(share).filter(owner=None), None
    for created_at, size in answered.order_by("created_at").values_list("created_at", "size").iterator():
        oldest, used = created_at, used - size
        if used <= share.made_room:
            break
    if oldest is not None:
        deleted = answered.filter(created_at__lte=oldest).delete()[0]
        KEPT_ANSWERS_FORGOTTEN.labels("all" if share.kind is None else share.kind.value).inc(deleted)

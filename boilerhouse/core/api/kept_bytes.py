"""How many bytes of the database the kept answers of a tenant and of a key take, and how many they may.

The database knows; a process asks it once a minute for each share in use, and adds what it keeps itself meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import Sum
from django.utils import timezone

from boilerhouse.core.budgets import TENANT_ROLE, BudgetExceeded, Kind, Use
from boilerhouse.core.instruments import BUDGET_REFUSALS
from boilerhouse.core.models import IdempotencyRecord

RESOURCE = "kept_answers"
RETENTION = timedelta(hours=24)
RECORD_BYTES = 512
"""What a record takes besides its answer, with its place in the indexes."""
ASK_EVERY_S = 60.0
MAX_SHARES = 10_000


class KeptTooMuch(BudgetExceeded):
    """No more answers are kept for this tenant or key; ask without an Idempotency-Key, or tomorrow."""

    retry_after = 600


@dataclass(frozen=True, slots=True)
class Share:
    kind: Kind
    name: str
    is_tenants: bool = False
    """Of a tenant: by its own keys. What others do for it is counted apart, and goes on when this is used up."""

    @property
    def most(self) -> int:
        return int(getattr(settings, f"BOILERHOUSE_KEPT_BYTES_PER_{self.kind.name}"))

    @property
    def columns(self) -> dict[str, Any]:
        """By which its records are found, or made."""
        if self.kind is Kind.TENANT:
            return {"tenant_id": self.name, "is_tenants": self.is_tenants}
        return {"key_id": self.name}


def shares_of(key: Any, about: str) -> tuple[Share, ...]:
    """Whose share a request takes. Keys that act for any tenant are counted by tenant, where one is named."""
    is_tenants = key.role == TENANT_ROLE
    found = [Share(Kind.TENANT, about, is_tenants)] if about else []
    if is_tenants or not about:
        found.append(Share(Kind.KEY, str(key.pk)))
    return tuple(found)


class Ledger:
    """Bytes by share, as the database said a while ago and this process has changed it since."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[Share, tuple[int, float]] = OrderedDict()

    def used(self, share: Share) -> int:
        with self._lock:
            known = self._known.get(share)
        if known is not None and time.monotonic() - known[1] < ASK_EVERY_S:
            return known[0]
        found = _asked(share)
        with self._lock:
            self._known[share] = (found, time.monotonic())
            self._known.move_to_end(share)
            if len(self._known) > MAX_SHARES:
                self._known.popitem(last=False)
        return found

    def add(self, shares: tuple[Share, ...], size: int) -> None:
        with self._lock:
            for share in shares:
                if (known := self._known.get(share)) is not None:
                    self._known[share] = (known[0] + size, known[1])

    def check_room(self, shares: tuple[Share, ...]) -> None:
        """Raises KeptTooMuch where no more answers are kept for one of them."""
        for share in shares:
            if self.used(share) + RECORD_BYTES > share.most:
                BUDGET_REFUSALS.labels(RESOURCE, share.kind.value).inc()
                raise KeptTooMuch(
                    f"The answers that are kept for this {share.kind.value}'s Idempotency-Keys take {share.most} bytes,"
                    " as many as those of one may; ask without an Idempotency-Key, or when older ones are forgotten,"
                    " a day after they were given."
                )

    def clear(self) -> None:
        with self._lock:
            self._known.clear()


ledger = Ledger()


def use_of(tenant_id: str) -> Use:
    """What the answers to the tenant's own keys take, of what they may."""
    share = Share(Kind.TENANT, tenant_id, is_tenants=True)
    return Use("bytes of kept answers", _asked(share), share.most)


def total() -> int:
    """What all kept answers take."""
    return int(IdempotencyRecord.objects.aggregate(sum=Sum("size"))["sum"] or 0)


def _asked(share: Share) -> int:
    rows = IdempotencyRecord.objects.filter(created_at__gt=timezone.now() - RETENTION, **share.columns)
    return int(rows.aggregate(sum=Sum("size"))["sum"] or 0)

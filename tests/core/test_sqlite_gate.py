"""F3: writers of several threads take turns; nobody meets "database is locked".

On SQLite the row lock is the gate: BEGIN IMMEDIATE in flock's order.
"""

from __future__ import annotations

import threading

from django.db import connection, transaction
from django.utils import timezone

from boilerhouse.core.models import Lease


def test_many_writers_lose_no_update(transactional_db):
    Lease.objects.create(name="counter", expires_at=timezone.now())
    errors = []

    def write() -> None:
        try:
            for _ in range(50):
                with transaction.atomic():
                    lease = Lease.objects.select_for_update().get(name="counter")
                    Lease.objects.filter(pk=lease.pk).update(
                        expires_at=lease.expires_at + timezone.timedelta(seconds=1)
                    )
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    before = Lease.objects.get().expires_at
    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not errors
    assert (Lease.objects.get().expires_at - before).total_seconds() == 400

"""Events commit in order of their ids, are written last in their transaction, and only with it."""

from __future__ import annotations

import threading
import time

import pytest
from django.db import connection

from boilerhouse.core.events import emit, recording
from boilerhouse.core.models import Event


def test_an_event_of_a_rolled_back_transaction_is_not_written(db):
    with pytest.raises(RuntimeError), recording():
        emit("pool.scaled", pool_id="p")
        raise RuntimeError

    assert not Event.objects.exists()


def test_nested_recordings_write_once_at_the_end(db):
    with recording():
        emit("pool.scaled", pool_id="a")
        with recording():
            emit("pool.scaled", pool_id="b")
        assert not Event.objects.exists()

    assert list(Event.objects.order_by("id").values_list("pool_id", flat=True)) == ["a", "b"]


def test_a_cursor_reader_loses_nothing_while_eight_writers_write(transactional_db):
    writers, each = 8, 60
    done = threading.Event()

    def write(number: int) -> None:
        for _ in range(each):
            emit("pool.scaled", pool_id=str(number))
        connection.close()

    seen: list[int] = []

    def read() -> None:
        last = 0
        while True:
            finished = done.is_set()
            batch = list(Event.objects.filter(pk__gt=last).order_by("id").values_list("pk", flat=True))
            seen.extend(batch)
            last = batch[-1] if batch else last
            if finished and not batch:
                break
            time.sleep(0.002)
        connection.close()

    threads = [threading.Thread(target=write, args=(n,)) for n in range(writers)]
    reader = threading.Thread(target=read)
    reader.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    reader.join()

    assert len(seen) == writers * each == Event.objects.count()

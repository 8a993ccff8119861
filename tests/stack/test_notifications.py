"""Notifications by the running processes, also if the controller is killed between two steps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from boilerhouse.notifications.models import Delivery
from boilerhouse.notifications.states import DeliveryState
from tests.receivers import receiving
from tests.stack.conftest import eventually

FAILPOINTS = Path(os.environ["BOILERHOUSE_FAILPOINTS"])
pytestmark = pytest.mark.postgresql


@pytest.fixture
def armed():
    """Whoever passes these points first is killed there, as by a power cut."""
    places = [FAILPOINTS / name for name in ("notifications.observed", "notifications.sent")]
    for place in places:
        place.touch()
    yield places
    for place in places:
        place.unlink(missing_ok=True)


def test_a_pool_that_cannot_start_is_told_once_although_the_controller_dies_twice(stack, armed):
    """Killed between the decision and the message, and, when it runs again, between the message and its record."""
    with receiving() as receiver:
        stack.ok("POST", "notifications", {"id": "told", "name": "T", "type": "slack", "url": receiver.url}, 201)
        stack.ok(
            "POST", "workloads", {"id": "absent", "name": "absent", "image": "absent:1", "pullPolicy": "never"}, 201
        )
        stack.ok("POST", "pools", {"id": "absent", "workloadId": "absent", "minSize": 1, "maxSize": 1}, 201)
        try:
            rows = Delivery.objects.filter(target="told", incident__key__startswith="pool:absent:")
            eventually(lambda: rows.filter(moment="opened", state=DeliveryState.DELIVERED).exists(), 60, 0.3)
            assert not any(place.exists() for place in armed), "both were killed there"
            stack.ok("DELETE", "pools/absent", None, 202)
            eventually(lambda: rows.filter(moment="resolved", state=DeliveryState.DELIVERED).exists(), 60, 0.3)
        finally:
            stack.call("DELETE", "pools/absent?force=true")
            stack.call("DELETE", "notifications/told")
        texts = [got.json["text"] for got in receiver.received if "absent cannot start containers" in got.body.decode()]
    opened = [text for text in texts if "Needs attention" in text]
    assert 1 <= len(opened) <= 2, "once more where the first was not recorded"
    assert sum("Resolved" in text for text in texts) >= 1

"""What the buttons of needs do. Each names the cause by its key, so that it acts on what the cause affects now."""

from __future__ import annotations

from django.http import HttpRequest

from boilerhouse.attention import causes
from boilerhouse.attention.cause import Cause
from boilerhouse.attention.words import count, listed
from boilerhouse.dashboard.access import action
from pools import services
from tenants import upkeep

OVER = "This has been resolved in the meantime. Nothing was done."


def _named(request: HttpRequest) -> Cause | None:
    key = request.POST.get("key", "")
    return next((cause for cause in causes.present() if cause.key == key), None)


@action()
def retry_saves(request: HttpRequest) -> str:
    """Retry the failed saves of the cause's tenants."""
    cause = _named(request)
    if cause is None or not cause.unsaved:
        return OVER
    retried = upkeep.retry_saves_of(cause.unsaved)
    return f"Retrying {count(retried, 'save')}." if retried else "The saves are already being retried."


@action()
def start(request: HttpRequest) -> str:
    """End the back-off of the cause's pools."""
    cause = _named(request)
    if cause is None:
        return OVER
    for pool_id in cause.pool_ids:
        services.start_now(pool_id)
    return f"Starting containers of {listed(cause.pool_ids)}."

"""What is said after a sync spec or a credential was saved: that, and whether its sink accepts saves."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest

from boilerhouse.core.events import afterwards
from syncing.models import SyncSpec
from syncing.sink_words import Explanation, explain


def tell(request: HttpRequest, text: str, spec_id: str) -> None:
    """Say ``text`` when the change has been committed and the sink probed; as a warning if the sink refuses.

    Call it after the service: what was asked for after a commit is done in order, so the probe has its answer.
    """
    afterwards(lambda: _tell(request, text, spec_id))


def _tell(request: HttpRequest, text: str, spec_id: str) -> None:
    spec = SyncSpec.objects.defer("sink_secrets").filter(pk=spec_id).first()
    health = spec.sink_health if spec else {}
    if spec is None or health.get("state") != "unhealthy":
        messages.success(request, text)
        return
    messages.warning(request, f"{text.rstrip('.')}, but the sink refuses: {why(spec).text}")


def why(spec: SyncSpec) -> Explanation:
    """Why the last check of the spec's sink failed."""
    health = spec.sink_health
    return explain(str(health.get("code") or ""), str(health.get("detail") or ""), str(spec.sink.get("type") or ""))

"""Records of containers that died while claimed: how they ended, the lines that explain it, and the end of their logs.

The text is tenants' output, so it is encrypted at rest, shown only to roles that may read logs, limited per tenant, and
deleted when the tenant's state is erased.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.utils.dateparse import parse_datetime

from boilerhouse.core import clock, deployment_settings
from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.core.models import Event
from pools import last_output, lifecycle
from pools.nodes import node_of
from pools.runtime.base import ContainerRuntime, Observed
from tenants.models import Assignment, Death
from tenants.states import ReleaseReason

LOG_LINES, LOG_BYTES = 1000, 32 * 1024
PER_TENANT = 2
ENDED_AS_ASKED = (0, 137, 143)
"""Usual exit codes of a stopped container: its own, SIGKILL, SIGTERM."""


def keep(assignment: Assignment, observed: Observed | None) -> None:
    """Record the output of a container that died by itself, or that ended with an error when it was stopped; once."""
    has_died = assignment.reason == ReleaseReason.CONTAINER_DIED or bool(
        assignment.container and assignment.container.is_dead
    )
    if not has_died and (observed is None or observed.exit_code in ENDED_AS_ASKED):
        return
    if Death.objects.filter(assignment=assignment).exists():
        return
    name, container = lifecycle.runtime_name(assignment.held_container), assignment.container
    runtime = node_of(assignment).runtime
    error = container.error if container and container.is_dead else ""
    when = "" if has_died else " when stopped"
    Death.objects.create(
        assignment=assignment,
        tenant_id=assignment.tenant_id,
        container_ref=assignment.held_container,
        exit_code=observed.exit_code if observed else None,
        detail=error or f"The container's main process ended with {last_output.ended(observed)}{when}.",
        words=last_output.of(runtime, name),
        log=_end_of_log(runtime, name),
    )
    mine = Death.objects.filter(tenant_id=assignment.tenant_id).order_by("-pk")
    Death.objects.filter(pk__in=list(mine.values_list("pk", flat=True)[PER_TENANT:])).delete()


def _end_of_log(runtime: ContainerRuntime, name: str) -> str:
    """Each line with its time; the first one may be truncated."""
    try:
        return runtime.logs(name, LOG_LINES, limit_bytes=LOG_BYTES, timestamps=True).decode(errors="replace")
    except BoilerhouseError:
        return ""


def last_of(tenant_id: str) -> Death | None:
    """The record of the container of the tenant's newest claim; None if it has not died."""
    newest = Assignment.objects.filter(tenant_id=tenant_id).order_by("-created_at").values_list("pk", flat=True).first()
    return Death.objects.filter(assignment=newest).first() if newest else None


def of_container(container_id: UUID) -> Death | None:
    return Death.objects.filter(container_ref=container_id).order_by("-pk").first()


def log_of(death: Death, tail: int, since: float | None, *, timestamps: bool = False) -> bytes:
    """The stored end of the log, in the format of ``working.logs``."""
    selected, lines = [], death.log.split("\n")  # not splitlines: a program's own line may contain a carriage return
    if not lines[-1]:
        lines.pop()
    for line in lines:
        at, _, text = line.partition(" ")
        moment = _moment(at)
        if since is None or (moment is not None and moment.timestamp() > since):
            selected.append(text if moment and not timestamps else line)
    return "".join(f"{line}\n" for line in selected[-tail:] if tail).encode()


def _moment(text: str) -> datetime | None:
    """The engine's timestamp of a line; None for the rest of a truncated line."""
    return parse_datetime(f"{text[:26].rstrip('Z')}Z") if "T" in text[:12] else None


def render(death: Death, *, reads_logs: bool) -> dict[str, Any]:
    """In the API's format; ``lastWords`` is null for roles that may not read logs."""
    return {
        "at": death.at,
        "containerId": str(death.container_ref),
        "generation": death.assignment.generation,
        "exitCode": death.exit_code,
        "signal": last_output.signal_name(death.exit_code) or None,
        "detail": death.detail,
        "lastWords": death.words if reads_logs else None,
    }


def forget(tenant_id: str) -> None:
    """Delete all records, and hooks' output, including the private parts of events; the events stay."""
    Death.objects.filter(tenant_id=tenant_id).delete()
    Event.objects.filter(tenant_id=tenant_id).exclude(private=None).update(private=None)


def forget_old() -> int:
    """Delete records older than the retention of events. Returns how many."""
    old = clock.now() - timedelta(seconds=deployment_settings.current().retention_s["events"])
    return Death.objects.filter(at__lt=old).delete()[0]

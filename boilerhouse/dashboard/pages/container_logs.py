"""The log on a container's page, and the log as a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from django.http import HttpRequest, HttpResponse

from boilerhouse.core.errors import BoilerhouseError
from boilerhouse.core.models import Role
from boilerhouse.dashboard.access import page, slow
from boilerhouse.dashboard.log_lines import LogLine, LogSearch, choose, log_lines
from boilerhouse.dashboard.page_sections import is_refresh
from boilerhouse.dashboard.templatetags.ui import short
from boilerhouse.web import node_calls
from pools import errors as pool_errors
from pools import tombstones
from pools.models import Container, Tombstone
from tenants import activity

MAX_TAIL = 10_000
"""How many lines are searched, and how many a file has."""
FIRST = 500
"""How many lines a page asks for when nothing is searched."""


@dataclass(slots=True)
class LogCard:
    """What the log's card shows. ``is_kept``: an open page has its lines already, and a refresh sends none."""

    container_id: UUID
    search: LogSearch
    lines: list[LogLine] = field(default_factory=list)
    total: int = 0
    error: str = ""
    is_kept: bool = False
    is_followed: bool = False


def card_of(request: HttpRequest, container: Container) -> LogCard:
    """The log of a container that the engine has."""
    card = LogCard(container.pk, LogSearch.of(request.GET), is_followed=container.state != "removing")
    if is_refresh(request):
        card.is_kept = True
        return card
    tail = MAX_TAIL if card.search.is_on or card.search.at else FIRST
    try:
        lines = log_lines(activity.logs(container, tail, None, timestamps=True))
    except BoilerhouseError as error:
        if node_calls.can_pass(error):
            raise  # its node shows the page
        card.error = error.detail
        return card
    card.lines, card.total = choose(lines, card.search), len(lines)
    return card


def card_of_removed(request: HttpRequest, tombstone: Tombstone) -> LogCard:
    """What was kept of the log of a container that is gone."""
    card = LogCard(tombstone.pk, LogSearch.of(request.GET), is_kept=is_refresh(request))
    if not card.is_kept:
        lines = log_lines(tombstones.log_of(tombstone))
        card.lines, card.total = choose(lines, card.search), len(lines)
    return card


@slow
@page(Role.OPERATOR)
def download(request: HttpRequest, container_id: UUID) -> HttpResponse:
    """The same lines as a file, each with its time in UTC."""
    search = LogSearch.of(request.GET)
    lines = log_lines(_data(container_id))
    matching = [f"{line.at} {line.text}" for line in lines if search.fits(line)]
    answer = HttpResponse("\n".join([*matching, ""]), content_type="text/plain; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{short(str(container_id))}.log"'
    return answer


def _data(container_id: UUID) -> bytes:
    container = Container.objects.filter(pk=container_id).first()
    if container is not None:
        return activity.logs(container, MAX_TAIL, None, timestamps=True)
    tombstone = Tombstone.objects.filter(pk=container_id).first()
    if tombstone is None:
        raise pool_errors.ContainerNotFound(f"There is no container {container_id}; it may have been removed.")
    return tombstones.log_of(tombstone)

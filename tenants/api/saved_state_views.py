"""The last complete save of a tenant that holds nothing: names and contents, read-only."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter
from rest_framework.response import Response

from boilerhouse.api.base import ApiView
from boilerhouse.api.pagination import integer
from boilerhouse.api.schema import CURSOR, operation, whole
from boilerhouse.core.models import Role
from boilerhouse.process import budgets
from pools.guest.files import MAX_ENTRIES
from tenants import saved_state
from tenants.api import file_answers
from tenants.api.file_fields import PATH_ENCODING, TYPE, FilePageOutput, cursor_of, is_percent, path_of, render_page

DEFAULT_ENTRIES = 200
SAVED_PATH = OpenApiParameter("path", str, description="Absolute, as in the container.", required=True)
SAVED_DIRECTORY = OpenApiParameter("path", str, description="A directory: absolute, as in the container (default /).")
READS = {
    403: "file_denied",
    404: "file_not_found",
    409: "held restoring_backup erasing is_directory not_directory file_busy",
    502: "state_missing state_moved unreachable denied object_too_large failed",
    503: "too_many_transfers too_many_saved_files",
}


class SavedStateView(ApiView):
    lane = "slow"
    viewer_may_read = False

    def owners(self, tenant_id: str) -> tuple[budgets.Owner, ...]:
        return budgets.owners(self.request.auth, budgets.tenant(tenant_id))

    def note_read(self, saved: saved_state.Saved, path: bytes) -> None:
        key: Any = self.request.auth
        if key.role != Role.TENANT:
            saved.note_read(path)


class SavedFileListView(SavedStateView):
    @operation(
        operation_id="listSavedFiles",
        summary="List a directory of the saved state",
        description="What a restore of the last complete save would put there, by the record at the sink, while the"
        " tenant holds nothing (otherwise 409 `held`). Links are shown, never followed. Nothing at the sink is changed;"
        " an interrupted save is read as it was before.",
        parameters=[
            SAVED_DIRECTORY, PATH_ENCODING,
            whole("limit", 1, MAX_ENTRIES, f"Entries of one answer (default {DEFAULT_ENTRIES})."), CURSOR,
        ],
        problems=READS,
        responses=FilePageOutput,
    )  # fmt: skip
    def get(self, request: Any, tenant_id: str) -> Response:
        limit = integer(request, "limit", DEFAULT_ENTRIES, 1, MAX_ENTRIES)
        cursor = cursor_of(request)
        path, percent = path_of(request, is_required=False) or b"/", is_percent(request)
        saved = saved_state.of_tenant(tenant_id)
        with budgets.transfers.enter(*self.owners(tenant_id)):
            entries, has_more = saved.list_directory(path, limit, cursor)
        return Response(render_page(path, entries, has_more=has_more, is_percent=percent))


class SavedContentView(SavedStateView):
    @operation(
        operation_id="readSavedFile",
        summary="Read a file of the saved state",
        description="The bytes of a file of the last complete save, while the tenant holds nothing (otherwise 409"
        " `held`). `Range` (one range), `If-None-Match` and `If-Range` work. A link answers 403 `file_denied`, a file"
        " of more than 32 MiB 502 `object_too_large`: claim to read it.",
        parameters=[SAVED_PATH, PATH_ENCODING],
        problems=READS,
        responses=TYPE,
    )
    def get(self, request: Any, tenant_id: str) -> HttpResponse:
        path = path_of(request)
        saved = saved_state.of_tenant(tenant_id)
        self.note_read(saved, path)
        with budgets.transfers.enter(*self.owners(tenant_id)):
            file = saved.open(path)
            return file_answers.saved(request, file, path, str(request.auth.pk), self.owners(tenant_id))

"""Whose files a page shows: those of the container that the tenant holds, or those of its last save."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings
from django.http import HttpRequest

from boilerhouse.core.errors import Conflict, Forbidden, NotFound
from boilerhouse.dashboard import file_paths
from pools.file_errors import FileDenied
from pools.guest.file_frames import Entry
from pools.guest.files import MAX_ENTRIES
from syncing.models import SavedState, SyncRun
from tenants import errors, files, saved_state, validation
from tenants.files import HeldFiles
from tenants.models import Assignment, Tenant
from tenants.saved_state import Saved


class FilesOff(Forbidden):
    """Pages show no files of tenants here. Set BOILERHOUSE_FILE_BROWSER=true to allow operators to see them."""

    code = "files_off"


class NothingSaved(errors.NotAssigned):
    """The tenant holds no container, and no state of it is saved."""


class OtherClaim(Conflict):
    """The tenant has another container than when the page was opened. Nothing was changed. Open its files again."""

    code = "other_claim"


@dataclass(frozen=True, slots=True)
class Source:
    """Exactly one of ``held`` and ``saved`` is set."""

    tenant_id: str
    held: HeldFiles | None = None
    saved: Saved | None = None

    @property
    def is_saved(self) -> bool:
        return self.saved is not None

    @property
    def generation(self) -> int:
        """The generation of the claim; 0 if there is none."""
        return self.held.generation if self.held else 0

    def whole(self, path: bytes) -> bytes:
        """The path from ``/``; without one, where the tenant's files are. Raises BadPath."""
        if self.held is None:
            return path.rstrip(b"/") or b"/"
        return self.held.place(path or self.held.root).path

    def list_directory(self, path: bytes, limit: int, cursor: bytes) -> tuple[list[Entry], bool]:
        """Names after ``cursor``, at most ``limit`` but perhaps fewer, and whether there are more."""
        if self.held is not None:
            return self.held.access.list_directory(self.held.place(path), 1, min(limit, MAX_ENTRIES), cursor)
        assert self.saved is not None
        return self.saved.list_directory(path, limit, cursor)

    def note(self, action: str, path: bytes) -> None:
        """Record the access in the audit log, before anything is shown."""
        if self.held is not None:
            self.held.note(action, path)
        elif self.saved is not None:
            self.saved.note_read(path)


def check_allowed() -> None:
    """Raises FilesOff."""
    if not settings.BOILERHOUSE_FILE_BROWSER:
        raise FilesOff


def check_tenant(tenant_id: str) -> None:
    """Raises Invalid, NotFound."""
    validation.check_tenant_id(tenant_id)
    has_any = (
        Tenant.objects.filter(pk=tenant_id).exists()
        or SyncRun.objects.filter(tenant_id=tenant_id).exists()
        or SavedState.objects.filter(tenant_id=tenant_id).exists()
    )
    if not has_any:
        raise NotFound(f"There is no tenant {tenant_id}.")


def of_tenant(tenant_id: str) -> Source:
    """The tenant's files now. Reading those of a container counts as activity.

    Raises NotFound, Invalid, FilesOff, NotAssigned, Releasing, OtherNode, and what the service of saves raises.
    """
    check_tenant(tenant_id)
    check_allowed()
    if Assignment.objects.live().filter(tenant_id=tenant_id).exists():
        return Source(tenant_id, held=files.of_tenant(tenant_id))
    saved = saved_state.of_tenant(tenant_id)
    if not saved.mappings:
        raise NothingSaved
    return Source(tenant_id, saved=saved)


def to_read(request: HttpRequest, tenant_id: str) -> tuple[Source, bytes]:
    """The tenant's files, and the path from ``/`` that the address names.

    Raises what ``of_tenant`` raises, and BadPath, NotFound without a path.
    """
    source = of_tenant(tenant_id)
    return source, source.whole(file_paths.named(request))


def to_change(request: HttpRequest, tenant_id: str) -> tuple[HeldFiles, bytes]:
    """The files that a form changes, and the path from ``/`` that it names.

    Raises what ``to_read`` raises, and OtherClaim, FileDenied.
    """
    source = of_tenant(tenant_id)
    if source.held is None:
        raise FileDenied("Saved files cannot be changed.")
    claim = request.POST.get("generation") or request.GET.get("generation")
    if claim and claim != str(source.generation):
        raise OtherClaim
    return source.held, source.whole(file_paths.named(request))

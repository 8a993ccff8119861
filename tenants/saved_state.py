"""A tenant's saved files while it holds nothing: the last complete saves at the sinks, read-only."""

from __future__ import annotations

from dataclasses import dataclass

from boilerhouse.core import audit
from boilerhouse.core.events import recording
from pools.file_errors import BadPath, FileMissing, IsDirectory, NotDirectory
from pools.guest.file_frames import Entry, FileInfo
from syncing import errors as sync_errors
from syncing import places, saved_files
from syncing.models import SavedState, SyncMapping, SyncRun
from syncing.saved_files import SavedTree
from syncing.states import Trigger
from tenants import errors, files, validation
from tenants.models import Assignment, Tenant

ABOVE = FileInfo("directory", 0, 0o755, 0, 0, 0)
"""A directory above the saved ones: no save knows more of it."""


@dataclass(frozen=True, slots=True)
class OpenSaved:
    """A file of the saved state."""

    tenant_id: str
    tree: SavedTree
    inside: str

    @property
    def info(self) -> FileInfo:
        return self.tree.info(self.inside)

    def read(self) -> bytes:
        """The whole content. Raises Held if the tenant claims meanwhile, FileBusy if a save begins, and SyncFailed."""
        content = self.tree.read(self.inside)
        _check_free(self.tenant_id)
        return content


@dataclass(frozen=True, slots=True)
class Saved:
    """Where the tenant's state is saved: the mapping of each saved directory, by its path in the container."""

    tenant_id: str
    mappings: dict[str, SyncMapping]

    def list_directory(self, path: bytes, limit: int, cursor: bytes) -> tuple[list[Entry], bool]:
        """The names directly in a directory after ``cursor``, by their bytes, and whether there are more.

        Raises BadPath, FileMissing, NotDirectory, SyncFailed.
        """
        whole = _absolute(path)
        children: dict[bytes, FileInfo] = {}
        at = self._mapping_of(whole)
        if at is not None:
            tree, inside = self._tree(at), _inside(at, whole)
            if inside in tree.files or not self._above(whole):
                if tree.info(inside).type != "directory":
                    raise NotDirectory
                start = f"{inside}/" if inside else ""
                children = {
                    _bytes(name[len(start) :]): file.info
                    for name, file in tree.files.items()
                    if name and name.startswith(start) and "/" not in name[len(start) :] and name != inside
                }
        above = self._above(whole)
        if at is None and not above and whole != "/":
            raise FileMissing
        for name in above:
            children.setdefault(_bytes(name), ABOVE)
        after = sorted(name for name in children if name > cursor)
        return [Entry(name, children[name]) for name in after[:limit]], len(after) > limit

    def open(self, path: bytes) -> OpenSaved:
        """The file, whose content has not been asked for. Raises BadPath, FileMissing, IsDirectory, FileDenied for a
        link, and SyncFailed."""
        whole = _absolute(path)
        at = self._mapping_of(whole)
        if at is None or whole in self.mappings:
            raise IsDirectory if self._above(whole) or whole in {"/", *self.mappings} else FileMissing
        tree, inside = self._tree(at), _inside(at, whole)
        tree.check_readable(inside)
        return OpenSaved(self.tenant_id, tree, inside)

    def read(self, path: bytes) -> tuple[FileInfo, bytes]:
        """What the path names, and its content, at most ``MAX_CONTENT_BYTES``. Raises what ``open`` raises, FileBusy
        and Held."""
        file = self.open(path)
        return file.info, file.read()

    def note_read(self, path: bytes) -> None:
        """Record in the audit log who reads which file."""
        with recording():
            audit.record("tenant.saved_file_read", self.tenant_id, after={"path": files.shown(path)})

    def _tree(self, container_path: str) -> SavedTree:
        mapping = self.mappings[container_path]
        return saved_files.tree(mapping, places.sink_of(mapping.spec), mapping.location(self.tenant_id))

    def _mapping_of(self, whole: str) -> str | None:
        """The deepest saved directory that contains the path."""
        around = [at for at in self.mappings if _is_within(whole, at)]
        return max(around, key=len, default=None)

    def _above(self, whole: str) -> set[str]:
        """The names in a directory that lead to saved directories."""
        start = whole.rstrip("/") + "/"
        return {at[len(start) :].partition("/")[0] for at in self.mappings if at.startswith(start) and at != start}


def of_tenant(tenant_id: str) -> Saved:
    """The tenant's saved state.

    Raises Invalid, Held while the tenant holds a container, RestoringBackup, Erasing, StateMoved if a save is where no
    sync spec saves any more.
    """
    validation.check_tenant_id(tenant_id)
    _check_free(tenant_id)
    rows = SavedState.objects.current().filter(tenant_id=tenant_id).select_related("mapping__spec__credential")
    by_path: dict[str, list[SavedState]] = {}
    for row in rows.order_by("saved_at", "id"):
        by_path.setdefault(row.container_path.rstrip("/") or "/", []).append(row)
    return Saved(tenant_id, {path: _mapping(saves) for path, saves in by_path.items()})


def _mapping(saves: list[SavedState]) -> SyncMapping:
    """The mapping of the newest save of a directory; of one that a claim restores, if there is one."""
    known = [row.mapping for row in saves if row.mapping is not None and _is_there(row, row.mapping)]
    if not known:
        raise sync_errors.StateMoved(f"No sync spec saves {saves[-1].container_path} to {saves[-1].location} any more.")
    return max(enumerate(known), key=lambda item: (item[1].restores, item[0]))[1]


def _is_there(row: SavedState, mapping: SyncMapping) -> bool:
    is_same = mapping.uploads and mapping.location(row.tenant_id) == row.location
    return is_same and row.place in places.names_of(mapping.spec)


def _check_free(tenant_id: str) -> None:
    """While a container has the state, its files are newer than any save, and a save moves what is at the sink."""
    if Assignment.objects.live().filter(tenant_id=tenant_id).exists():
        raise errors.Held("The tenant holds a container: read its files there, or release it first.")
    busy = Tenant.objects.filter(pk=tenant_id).values_list("busy_run", flat=True).first()
    if busy is not None:
        is_erased = SyncRun.objects.filter(pk=busy, trigger=Trigger.ERASE).exists()
        raise errors.Erasing if is_erased else errors.RestoringBackup


def _absolute(path: bytes) -> str:
    """Raises BadPath: without a container, there is no volume that relative paths could begin at."""
    if not path.startswith(b"/") or b"\0" in path:
        raise BadPath("must be absolute and without NUL: no container is held that it could be relative to.")
    return path.decode("utf-8", "surrogateescape").rstrip("/") or "/"


def _is_within(whole: str, at: str) -> bool:
    return whole == at or whole.startswith(at.rstrip("/") + "/")


def _inside(at: str, whole: str) -> str:
    return whole[len(at) :].strip("/")


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")

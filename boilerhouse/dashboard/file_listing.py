"""A directory as a table: directories first, or in the order that its reader chose."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import attrgetter

from django.core.paginator import Paginator
from django.http import HttpRequest

from boilerhouse.dashboard import file_paths
from boilerhouse.dashboard.file_sources import Source
from boilerhouse.dashboard.table_order import TableOrder
from pools.guest.file_frames import Entry, FileInfo

READ = 5000
"""Names that are read and sorted at once; those after them are a link away."""
ROWS = 200
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEARS_S = (-62_135_596_800, 253_402_300_799)
"""The years 1 to 9999, which a datetime can hold. A tenant may give a file any time."""
_KINDS = {
    "directory": stat.S_IFDIR, "symlink": stat.S_IFLNK, "fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK,
    "device": stat.S_IFCHR,
}  # fmt: skip
SORTS = {"name": attrgetter("path"), "size": attrgetter("size"), "changed": attrgetter("info.mtime_ns")}
ICONS = {"directory": "i-folder", "symlink": "i-link", "file": "i-file"}


@dataclass(frozen=True, slots=True)
class FileRow:
    tenant_id: str
    path: bytes
    info: FileInfo
    is_saved: bool = False
    """Whether it is in the saved state, where links are not followed and nothing can be changed."""

    @property
    def name(self) -> str:
        return file_paths.shown_name(file_paths.name_of(self.path))

    @property
    def spelled(self) -> str:
        return file_paths.spelled(self.path)

    @property
    def type(self) -> str:
        return self.info.type

    @property
    def icon(self) -> str:
        return ICONS.get(self.type, "i-blocks")

    @property
    def is_directory(self) -> bool:
        return self.type == "directory"

    @property
    def size(self) -> int | None:
        return self.info.size if self.type == "file" else None

    @property
    def mode(self) -> str:
        """``-rw-r--r--``."""
        return stat.filemode(self.info.mode | _KINDS.get(self.type, stat.S_IFREG))

    @property
    def octal(self) -> str:
        return f"{self.info.mode:04o}"

    @property
    def changed_at(self) -> datetime | None:
        """None for a directory of the saved state, for which no time is stored."""
        if self.is_saved and not self.info.mtime_ns:
            return None
        first, last = _YEARS_S
        return _EPOCH + timedelta(seconds=min(max(self.info.mtime_ns // 10**9, first), last))

    @property
    def target(self) -> str:
        """The target as the link spells it. The list does not follow links."""
        return file_paths.shown(self.info.target) if self.type == "symlink" else ""

    @property
    def url(self) -> str:
        """Its page; empty for a file without content to show, such as a socket."""
        routes = {"file": "tenant-file", "directory": "tenant-files", "symlink": "tenant-files"}
        route = None if self.is_saved and self.type == "symlink" else routes.get(self.type)
        return file_paths.url(route, self.tenant_id, self.path) if route else ""

    @property
    def download_url(self) -> str:
        routes = {"file": "tenant-file-download", "directory": "tenant-file-archive"}
        route = None if self.is_saved and self.is_directory else routes.get(self.type)
        return file_paths.url(route, self.tenant_id, self.path) if route else ""

    @property
    def move_url(self) -> str:
        return file_paths.url("tenant-file-move", self.tenant_id, self.path)


@dataclass(frozen=True, slots=True)
class Directory:
    """What the page of a directory shows. ``older`` and ``newer`` are the names that components of lists use."""

    rows: Sequence[FileRow]
    order: TableOrder
    shown: str
    newer: str
    older: str
    more: str
    """The address of the names after those that were read; empty if there are none."""


def read(request: HttpRequest, source: Source, path: bytes) -> Directory:
    """The directory as it is now. Raises what listing raises."""
    after = file_paths.of_request(request, "after")
    entries, has_more = _entries(source, path, after)
    base = path.rstrip(b"/") + b"/"
    rows = [FileRow(source.tenant_id, base + entry.path, entry.info, source.is_saved) for entry in entries]
    order = TableOrder(request, SORTS)
    rows = order.of(sorted(rows, key=lambda row: (not row.is_directory, row.path)))
    number = request.GET.get("page", "1")
    page = Paginator(rows, ROWS).get_page(number if number.isascii() else 1)
    return Directory(
        list(page), order, f"{page.start_index()} to {page.end_index()} of {len(rows)}",
        newer=_with(request, page=page.previous_page_number()) if page.has_previous() else "",
        older=_with(request, page=page.next_page_number()) if page.has_next() else "",
        more=_with(request, after=file_paths.spelled(entries[-1].path), page=None) if has_more else "",
    )  # fmt: skip


def _entries(source: Source, path: bytes, after: bytes) -> tuple[list[Entry], bool]:
    entries: list[Entry] = []
    has_more = True
    while has_more and len(entries) < READ:
        some, has_more = source.list_directory(path, READ - len(entries), entries[-1].path if entries else after)
        if not some:
            return entries, False
        entries += some
    return entries, has_more


def _with(request: HttpRequest, **values: object) -> str:
    query = request.GET.copy()
    for name, value in values.items():
        query.pop(name, None)
        if value is not None:
            query[name] = str(value)
    return f"?{query.urlencode()}"

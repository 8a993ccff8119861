"""Files of a container while a tenant holds it; only of this tenant's container."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote_from_bytes, unquote_to_bytes
from uuid import UUID

from boilerhouse.core import audit
from boilerhouse.core.events import recording
from boilerhouse.core.text import printable
from pools.file_errors import BadPath
from pools.guest.files import Place
from pools.nodes import Files, node_of
from tenants import activity, idle
from tenants.models import Assignment

MAX_SHOWN = 1024


@dataclass(frozen=True, slots=True)
class HeldFiles:
    """The files of the container that a tenant holds."""

    container_id: UUID
    tenant_id: str
    generation: int
    root: bytes
    """Where relative paths begin: the first volume that the tenant may write, else /."""
    hidden: tuple[str, ...]
    row: Assignment

    @property
    def access(self) -> type[Files]:
        """Raises OtherNode."""
        return node_of(self.row).files

    def place(self, path: bytes) -> Place:
        """Raises BadPath."""
        if b"\0" in path:
            raise BadPath("must not contain NUL.")
        whole = path if path.startswith(b"/") else self.root.rstrip(b"/") + b"/" + path
        return Place(self.container_id, whole.rstrip(b"/") or b"/", self.hidden)

    def note(self, action: str, path: bytes, **more: object) -> None:
        """Record in the audit log who does what with which file."""
        with recording():
            about = {"tenantId": self.tenant_id, "generation": self.generation, "path": shown(path), **more}
            audit.record(f"container.{action}", self.container_id, after=about)


def shown(path: bytes) -> str:
    """A path for people."""
    return printable(path.decode(errors="backslashreplace"))[:MAX_SHOWN]


def of_tenant(tenant_id: str) -> HeldFiles:
    """The call counts as activity. Raises Invalid, NotAssigned, Releasing, OtherNode."""
    return of_container(activity.held_by(tenant_id))


def of_container(container_id: UUID) -> HeldFiles:
    """The call counts as activity. Raises NotClaimed, Releasing, OtherNode."""
    row = activity.claimed(container_id, "container__version")
    idle.note_activity(container_id)
    assert row.container is not None  # assigned
    spec = row.container.version.spec
    root = next((volume.container_path for volume in spec.volumes if volume.mode == "rw"), "/")
    hidden = tuple(volume.container_path for volume in spec.volumes if volume.name == "secrets")
    return HeldFiles(container_id, row.tenant_id, row.generation, root.encode(), hidden, row)


def decode(text: str, *, is_percent: bool) -> bytes:
    """A path of a request as the bytes that it stands for. Raises BadPath."""
    try:
        return unquote_to_bytes(text) if is_percent else text.encode()
    except UnicodeEncodeError as error:
        raise BadPath("is no UTF-8. Send it percent-encoded, with pathEncoding=percent.") from error


def encode(name: bytes, *, is_percent: bool) -> tuple[str, bool]:
    """A name for an answer, and whether it is percent-encoded: always if that is asked for, else if it is no UTF-8."""
    if not is_percent:
        try:
            return name.decode(), False
        except UnicodeDecodeError:
            pass
    return quote_from_bytes(name), True

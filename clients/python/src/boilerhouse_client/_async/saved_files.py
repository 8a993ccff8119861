"""The files of a tenant's last complete save, while the tenant holds nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator

from boilerhouse_client._async.reading import joined, list_files, stream_file
from boilerhouse_client._async.transport import AsyncTransport
from boilerhouse_client.answers import FileInfo
from boilerhouse_client.wire import Path


class AsyncSavedFiles:
    """What a restore would put into a container. Paths are absolute, as in the container.

    Every method raises Conflict (``held``) while the tenant holds a container: then its ``files`` are the state.
    """

    def __init__(self, client: AsyncTransport, base: str) -> None:
        self._client, self._path = client, f"{base}/state"

    def list(self, path: Path = "/") -> AsyncIterator[FileInfo]:
        """What is in a directory; links are shown, and not followed."""
        return list_files(self._client, f"{self._path}/files", path)

    async def read(self, path: Path, *, offset: int = 0, length: int | None = None) -> bytes:
        """A file, or a part of it, in memory. Raises as ``stream``."""
        return await joined(self.stream(path, offset=offset, length=length))

    async def read_text(self, path: Path) -> str:
        """A file of UTF-8. Raises UnicodeDecodeError, and as ``stream``."""
        return (await self.read(path)).decode()

    def stream(self, path: Path, *, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """A file in pieces. A broken connection is made again where it broke.

        Raises NotFound, Forbidden for a link, Failed (``object_too_large``) for a file of more than 32 MiB, and
        PreconditionFailed (``file_changed``).
        """
        return stream_file(self._client, f"{self._path}/content", path, offset, length)

"""Files of a container. Nothing is held in memory but what ``read`` and ``write`` are asked to."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path as LocalPath
from typing import Literal

from boilerhouse_client._async import platform
from boilerhouse_client._async.reading import joined, list_files, stream_file
from boilerhouse_client._async.transport import AsyncTransport
from boilerhouse_client.answers import Change, FileInfo, Link, path_of, time_of
from boilerhouse_client.errors import ApiError, Conflict, NotFound, Unreachable
from boilerhouse_client.payloads import Payload, packed, payload_of, unpack
from boilerhouse_client.sse import ServerEvent
from boilerhouse_client.wire import Path as RemotePath
from boilerhouse_client.wire import Patience, may_pass, paths

KINDS = {"created", "written", "removed", "renamed", "changed", "overflow"}


class AsyncFiles:
    """The files of one container, as its user sees them. A relative path is below its first writable volume."""

    def __init__(self, client: AsyncTransport, base: str) -> None:
        self._client, self._path = client, f"{base}/files"

    # Content ----------------------------------------------------------------------------------------

    async def write(
        self,
        path: RemotePath,
        data: platform.Source,
        *,
        mode: int | None = None,
        parents: bool = False,
        only_new: bool = False,
        if_match: str | None = None,
    ) -> FileInfo:
        """Write a file: text, bytes, an open file, or anything that yields bytes, of any length.

        The new content becomes visible at once, when all of it has arrived; if anything fails, the old one stays.
        ``mode``: permission bits. ``only_new`` and ``if_match`` (an ``etag``) raise PreconditionFailed if there is a
        file already, or another one. What yields bytes can be read only once, and is not sent again after a failure.
        """
        conditions = {"If-None-Match": "*"} if only_new else {"If-Match": if_match} if if_match else {}
        query = {**paths(path=path), "parents": parents or None, "mode": None if mode is None else f"{mode:04o}"}
        headers = {**conditions, "Content-Type": "application/octet-stream"}
        answer = await self._client.raw("PUT", self._path, params=query, headers=headers, payload=payload_of(data))
        return FileInfo.of(answer.json())

    async def read(self, path: RemotePath, *, offset: int = 0, length: int | None = None) -> bytes:
        """A file, or a part of it, in memory. Raises as ``stream``."""
        return await joined(self.stream(path, offset=offset, length=length))

    async def read_text(self, path: RemotePath) -> str:
        """A file of UTF-8. Raises UnicodeDecodeError, and as ``stream``."""
        return (await self.read(path)).decode()

    def stream(self, path: RemotePath, *, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """A file in pieces. A broken connection is made again where it broke.

        Raises NotFound, Forbidden, Conflict (``is_directory``, ``not_assigned``), and PreconditionFailed
        (``file_changed``) if another file has the name when it has to be opened again.
        """
        return stream_file(self._client, self._path, path, offset, length)

    # Files and directories of this machine ----------------------------------------------------------

    async def upload(self, local: str | os.PathLike[str], path: RemotePath, *, parents: bool = True) -> None:
        """Copy a file, with its permissions, to ``path``; or what a directory contains into the directory ``path``.

        Links of a directory are copied as links; sockets, FIFOs and devices are left out.
        """
        source = LocalPath(local)
        if source.is_dir():
            await self._unpack(path, packed(source), parents=parents)
            return
        with source.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            await self.write(path, file, mode=mode, parents=parents)

    async def download(self, path: RemotePath, local: str | os.PathLike[str]) -> None:
        """Copy a file to ``local``, which is replaced when all has come; or a directory into the directory ``local``.

        A container is not trusted: a link that leads out of the directory raises tarfile.FilterError.
        """
        target = LocalPath(local)
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            try:
                await _save(self.stream(path), part)
            except Conflict as error:
                if error.code != "is_directory":
                    raise
                await _save(self.read_archive(path), part)
                await platform.in_thread(unpack, part, target)
            else:
                await platform.in_thread(os.replace, part, target)
        finally:
            part.unlink(missing_ok=True)

    async def read_archive(self, path: RemotePath = ".") -> AsyncIterator[bytes]:
        """A directory as a tar archive, in pieces. Raises Unreachable if the connection breaks; then start again."""
        async with (
            self._client.stream(
                "GET", f"{self._path}/archive", params=paths(path=path), silence_s=self._client.timeout_s
            ) as answer,
            platform.closing(answer.aiter_raw()) as pieces,
        ):
            async for piece in pieces:
                yield piece

    async def write_archive(self, path: RemotePath, archive: platform.Source, *, parents: bool = False) -> int:
        """Unpack a tar archive, not compressed, into a directory. Returns the number of entries.

        Raises Invalid (``bad_archive``), which names the entry; the entries before it stay.
        """
        return await self._unpack(path, payload_of(archive), parents=parents)

    async def _unpack(self, path: RemotePath, payload: Payload, *, parents: bool) -> int:
        answer = await self._client.raw(
            "PUT", f"{self._path}/archive", params={**paths(path=path), "parents": parents or None},
            headers={"Content-Type": "application/x-tar"}, payload=payload,
        )  # fmt: skip
        return int(answer.json()["entries"])

    # Names ------------------------------------------------------------------------------------------

    def list(self, path: RemotePath = ".", *, depth: int = 1) -> AsyncIterator[FileInfo]:
        """What is in a directory, parents before their content; links are not entered."""
        return list_files(self._client, f"{self._path}/list", path, depth=depth)

    async def stat(self, path: RemotePath) -> FileInfo:
        """What a path names; a link itself. Raises NotFound."""
        return FileInfo.of(await self._client.call("GET", f"{self._path}/stat", params=paths(path=path)))

    async def exists(self, path: RemotePath) -> bool:
        try:
            await self.stat(path)
        except NotFound:
            return False
        return True

    async def mkdir(self, path: RemotePath, *, mode: int = 0o755, parents: bool = True) -> FileInfo:
        """Make a directory. With ``parents``, missing parents too, and an existing directory is no error."""
        body = {**paths(path=path), "mode": f"{mode:04o}", "parents": parents}
        return FileInfo.of(await self._client.call("POST", f"{self._path}/mkdir", body))

    async def move(self, source: RemotePath, to: RemotePath, *, overwrite: bool = False) -> FileInfo:
        """Rename within one file system. Raises Conflict (``file_exists``, ``other_file_system``)."""
        body = {**paths(from_=source, to=to), "overwrite": overwrite}
        return FileInfo.of(await self._client.call("POST", f"{self._path}/move", body))

    async def remove(self, path: RemotePath, *, recursive: bool = False) -> int:
        """Remove a file, a link, or with ``recursive`` a directory. Returns how many names are gone."""
        query = {**paths(path=path), "recursive": recursive or None}
        return int((await self._client.call("DELETE", self._path, params=query))["removed"])

    async def link(self, path: RemotePath, *, method: Literal["GET", "PUT"] = "GET", expires_in_s: int = 3600) -> Link:
        """A URL with which anybody can read (or write) this one file, until it expires or the claim ends."""
        body = {**paths(path=path), "method": method, "expiresInS": expires_in_s}
        answer = await self._client.call("POST", f"{self._path}/links", body)
        return Link(answer["url"], answer["method"], time_of(answer["expiresAt"]))

    async def watch(self, path: RemotePath = ".", *, recursive: bool = False) -> AsyncIterator[Change]:
        """Changes below a directory: ``ready`` first; it ends when the directory or the claim is gone.

        After a broken connection an ``overflow`` says that changes were missed.
        """
        query = {**paths(path=path), "recursive": recursive or None}
        is_first, patience = True, Patience(self._client.patience_s)
        while True:
            broken: Exception | None = None
            try:
                async with platform.closing(self._client.events_of(f"{self._path}/watch", query)) as events:
                    async for event in events:
                        if event.name == "end":
                            return
                        if event.name == "ready":
                            patience.opened()
                            yield Change("ready" if is_first else "overflow")
                            is_first = False
                        elif event.name in KINDS:
                            patience.reset()
                            yield _change(event)
            except Unreachable as error:
                broken = error
            except ApiError as error:
                if is_first or not may_pass(error):
                    raise
                broken = error
            await platform.sleep(patience.pause_s(broken))


def _change(event: ServerEvent) -> Change:
    about = event.data
    path = path_of(about.get("path", ""), about.get("pathEncoding") == "percent")
    return Change(event.name, path, about.get("isDirectory", False))  # type: ignore[arg-type]


async def _save(pieces: AsyncIterator[bytes], target: LocalPath) -> None:
    with target.open("wb") as file:
        async with platform.closing(pieces) as opened:
            async for piece in opened:
                await platform.in_thread(file.write, piece)

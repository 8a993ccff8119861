"""Reads files in a container through the engine."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import docker.errors
import docker.utils

from pools import errors
from pools.runtime.base import File
from pools.runtime.docker.engine import FAST_S, Engine
from pools.runtime.docker.translation import translated


class Files(Engine):
    """Reads files in a container."""

    def file(self, name: str, path: str, limit_bytes: int) -> File | None:
        with translated():
            api: Any = self._api()
            url = api._url("/containers/{0}/archive", name)
            response = api.head(url, params={"path": path}, timeout=FAST_S)
            try:
                api._raise_for_status(response)
            except docker.errors.NotFound:
                api.inspect_container(name)  # raises if it is the container that does not exist
                return None
            file = _file(docker.utils.decode_json_header(response.headers["X-Docker-Container-Path-Stat"]))
            if file.kind != "file" or file.size > limit_bytes:
                return file  # for a FIFO, the engine would wait for a writer
            with contextlib.closing(api._get(url, params={"path": path}, stream=True)) as answer:
                api._raise_for_status(answer)
                return replace(file, content=_only_file(answer.iter_content(CHUNK_BYTES), limit_bytes))


_KINDS = {0: "file", 1 << 31: "directory", 1 << 27: "symbolic link"}
"""File type bits of a mode, as the engine encodes them."""
_KIND_BITS = 1 << 31 | 1 << 27 | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19
CHUNK_BYTES, TAR_BYTES = 1 << 16, 1 << 20
"""Overhead that the engine may add to a file's content."""


def _file(document: dict[str, Any]) -> File:
    return File(_KINDS.get(document["mode"] & _KIND_BITS, "special file"), document["size"])


def _only_file(stream: Iterator[bytes], limit_bytes: int) -> bytes:
    """The content of the one file in a tar archive."""
    packed = bytearray()
    for chunk in stream:
        packed += chunk
        if len(packed) > limit_bytes + TAR_BYTES:
            raise errors.EngineFailure("The engine sent more than the size of the file.")
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as archive:
        member = archive.next()
        content = member and archive.extractfile(member)
        if not content:
            raise errors.EngineFailure("The engine sent something other than the file.")
        return content.read()

"""Static files under names with the digest of their content, compressed, and kept by browsers for good.

There is no build step: the name is computed from the source, and a file is compressed in memory when it is first
requested (ADR 80). The compressed form of our own files has no comments and no indentation.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from functools import cache
from hashlib import blake2b
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from posixpath import splitext
from typing import Any
from wsgiref.headers import Headers

from django.conf import settings
from django.contrib.staticfiles import finders
from django.contrib.staticfiles.storage import StaticFilesStorage
from django.http import HttpRequest, HttpResponseBase
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.responders import Response, StaticFile

from boilerhouse.web.lean_files import lean

DIGEST_BYTES = 6
VERSIONED = re.compile(r"(^|/)vendor/[^/]+-\d+\.\d+\.\d+/")
"""Vendored files have their version in their path, so CSS can refer to them by a fixed name."""
COMPRESSIBLE = ("text/", "application/json", "image/svg+xml", "application/javascript")
LEAST_BYTES = 200


class HashedStorage(StaticFilesStorage):
    """``{% static "app.js" %}`` is the URL of ``app.<digest>.js``; ``collectstatic`` writes those files too."""

    def url(self, name: str | None) -> str:
        return super().url(self.hashed_name(name or ""))

    def hashed_name(self, name: str) -> str:
        """The name with its digest. Without one while debugging, in versioned folders, and where there is no file."""
        if settings.DEBUG or VERSIONED.search(name):
            return name
        return _hashed_name(name, str(settings.STATIC_ROOT or ""))

    def post_process(self, paths: dict[str, Any], dry_run: bool = False, **_: Any) -> Iterator[tuple[str, str, bool]]:
        for name, (source, path) in paths.items():
            hashed = name if VERSIONED.search(name) else _with_digest(name, source.path(path))
            if not dry_run:
                content = Path(source.path(path)).read_bytes()
                Path(self.path(hashed)).write_bytes(content)
                Path(self.path(f"{hashed}.gz")).write_bytes(gzip.compress(lean(name, content), mtime=0))
            yield name, hashed, True


@cache
def _hashed_name(name: str, root: str) -> str:
    collected = Path(root, name) if root else None
    path = collected if collected and collected.is_file() else finders.find(name)
    return _with_digest(name, str(path)) if path else name


def _with_digest(name: str, path: str) -> str:
    digest = blake2b(Path(path).read_bytes(), digest_size=DIGEST_BYTES).hexdigest()
    stem, suffix = splitext(name)
    return f"{stem}.{digest}{suffix}"


class StaticFiles(WhiteNoiseMiddleware):  # type: ignore[misc]
    """Serves hashed names and versioned folders as immutable and compressed; plain names as they are, for a minute."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._paths: dict[str, str] = {}
        self._immutable: dict[str, StaticFile] = {}
        super().__init__(*arguments, **options)

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        url = request.path_info
        if not self.autorefresh and url.startswith(self.static_prefix) and (file := self._file(url)) is not None:
            return self.serve(file, request)  # type: ignore[no-any-return]
        return super().__call__(request)  # type: ignore[no-any-return]

    def add_file_to_dictionary(self, url: str, path: str, stat_cache: Any = None) -> None:
        self._paths[url] = path
        super().add_file_to_dictionary(url, path, stat_cache)

    def immutable_file_test(self, path: str, url: str) -> bool:
        """Only under the names that pages use: any other could be requested without end, and each would be kept."""
        return (url in self._paths and bool(VERSIONED.search(url))) or super().immutable_file_test(path, url)

    def _file(self, url: str) -> StaticFile | None:
        """The file of this URL. An unknown digest, of a page of another version, gets the file that is here."""
        if (file := self._immutable.get(url)) is not None:
            return file
        prefix = self.static_prefix
        plain = url if url in self.files else prefix + self.get_name_without_hash(url.removeprefix(prefix))
        path = self._paths.get(plain)
        if path is None:
            return None
        if not self.immutable_file_test(path, url):
            return self.files.get(plain)
        file = self._immutable[url] = self._compressed(path, url)
        return file

    def _compressed(self, path: str, url: str) -> StaticFile:
        headers = Headers([])
        self.add_mime_headers(headers, path, url)
        self.add_cache_headers(headers, path, url)
        content = Path(path).read_bytes()
        is_compressible = _is_compressible(headers["Content-Type"], content)
        sent = lean(url.removeprefix(self.static_prefix), content)
        small = gzip.compress(sent, mtime=0) if is_compressible else content
        return _Compressed(path, headers, small) if len(small) < len(content) else StaticFile(path, headers.items())


def _is_compressible(kind: str | None, content: bytes) -> bool:
    return len(content) >= LEAST_BYTES and (kind or "").startswith(COMPRESSIBLE)


class _Compressed(StaticFile):  # type: ignore[misc]
    """A file with its compressed content in memory."""

    def __init__(self, path: str, headers: Headers, compressed: bytes) -> None:
        headers["Vary"] = "Accept-Encoding"
        super().__init__(path, headers.items())
        own = Headers(list(self.get_path_and_headers({})[1]))
        own["Content-Encoding"], own["Content-Length"] = "gzip", str(len(compressed))
        del own["Last-Modified"]  # the ETag is enough, and a page has a dozen files
        self._headers, self._content = own.items(), compressed

    def get_response(self, method: str, request_headers: dict[str, str]) -> Response:
        is_whole = method in ("GET", "HEAD") and "HTTP_RANGE" not in request_headers
        takes_gzip = "gzip" in request_headers.get("HTTP_ACCEPT_ENCODING", "")
        if not is_whole or not takes_gzip or self.is_not_modified(request_headers):
            return super().get_response(method, request_headers)
        return Response(HTTPStatus.OK, self._headers, BytesIO(self._content) if method == "GET" else None)
